"""What says who the source was is not on a clone, or in an image made of it: not in one byte."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site
from tests.vm.killing import rubbish
from tests.vm.test_snapshots import check, digest

pytestmark = pytest.mark.vm

MACHINE_ID = "0123456789abcdef0123456789abcdef"
OTHERS = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyOfSomebodyElse someone@else"
SECRETS = {
    "etc/machine-id": f"{MACHINE_ID}\n",
    "etc/ssh/ssh_host_ed25519_key": "the-secret-host-key\n" * 9,
    "var/lib/systemd/random-seed": "the-secret-random-seed\n" * 9,
    "var/lib/cloud/instances/one/user-data.txt": "the-secret-user-data\n" * 9,
    "var/lib/cloud/data/instance-id": "the-old-instance\n",
    "var/lib/dhcp/dhclient.eth0.leases": "the-old-lease\n" * 9,
}
OPEN = {
    "etc/hostname": "source\n",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\ndev:x:1000:1000::/home/dev:/bin/sh\n",
    "etc/fstab": "# stays\n",
    "var/lib/cloud/seed/nocloud/meta-data": "stays\n",
    "var/lib/systemd/timers/stays": "stays\n",
}
KEYS = "home/dev/.ssh/authorized_keys"


def raw(disk: pathlib.Path, place: pathlib.Path) -> pathlib.Path:
    """Return what a guest sees of a disk, as a file."""
    words = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, place]
    subprocess.run(words, check=True)
    return place


def debugfs(disk: pathlib.Path, *commands: str) -> str:
    said = ""
    for command in commands:
        words = ["/sbin/debugfs", "-w", "-R", command, str(disk)]
        said += subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return said


def holds(disk: pathlib.Path, words: list[str]) -> list[str]:
    """Return those of the words that are anywhere in a file."""
    found, last = set(), b""
    with disk.open("rb") as stream:
        while piece := stream.read(16 << 20):
            found |= {word for word in words if word.encode() in last + piece}
            last = piece[-4096:]
    return sorted(found)


@pytest.fixture(scope="module")
def source(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A stopped machine with the files of a system on its disk, and its own key among others."""
    scratch = tmp_path_factory.mktemp("system")
    tree, name = scratch / "tree", site.name("src")
    for path, text in {**SECRETS, **OPEN, KEYS: f"{OTHERS}\n"}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    plain = scratch / "plain"
    words = ["/sbin/mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(plain), "64M"]
    subprocess.run(words, check=True)
    base = site.specs / f"{name}.qcow2"
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(plain), str(base)]
    subprocess.run(words, check=True)
    path = site.specs / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nimage: {{path: {base.name}, format: qcow2}}\nmemory: 128MiB\nuser: dev\n"
        "accel: tcg\ndevices: virtio\nready: {when: running}\nnetworks: []\n"
    )
    site.run("up", str(path))
    site.run("stop", "--force", name)
    place = site.home / "machines" / name
    keys = scratch / "keys"
    keys.write_text(f"{OTHERS}\n{(place / 'id_ed25519.pub').read_text()}")
    disk = place / "root.qcow2"
    seen = raw(disk, scratch / "raw")
    debugfs(seen, f"rm /{KEYS}", f"write {keys} /{KEYS}")
    info = subprocess.run(
        ["qemu-img", "info", "-f", "qcow2", disk], capture_output=True, text=True, check=True
    ).stdout
    below = info.partition("backing file: ")[2].splitlines()[0]
    owner, changed = disk.stat(), scratch / "changed"
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-B", below, "-F", "qcow2"]
    subprocess.run([*words, seen, changed], check=True)
    disk.write_bytes(changed.read_bytes())
    os.chown(disk, owner.st_uid, owner.st_gid)
    yield name
    site.run("down", "-y", name)


def secrets(site: Site, name: str) -> list[str]:
    key = (site.home / "machines" / name / "id_ed25519.pub").read_text().split()[1]
    return [key, *(text.splitlines()[0] for text in SECRETS.values())]


def washers(connection: libvirt.virConnect) -> list[str]:
    names = [domain.name() for domain in connection.listAllDomains()]
    return [name for name in names if name.startswith("vmctl-copy-")]


def test_no_byte_of_the_source(
    site: Site, source: str, connection: libvirt.virConnect, tmp_path: pathlib.Path
) -> None:
    machines = site.home / "machines"
    held, clone = digest(machines / source / "root.qcow2"), site.name("c")
    wanted = secrets(site, source)
    assert holds(raw(machines / source / "root.qcow2", tmp_path / "r"), wanted) == sorted(wanted)
    # Killed while the guest that cleans it is at work: that guest ends as well.
    before = set(washers(connection))
    process = site.start("clone", source, clone)
    end = time.monotonic() + PATIENCE
    while not set(washers(connection)) - before:
        assert time.monotonic() < end
        time.sleep(0.05)
    process.kill()
    process.communicate()
    while set(washers(connection)) - before:
        assert time.monotonic() < end
        time.sleep(0.05)
    site.run("clone", source, clone)
    assert rubbish(site) == []
    assert digest(machines / source / "root.qcow2") == held
    disk = machines / clone / "root.qcow2"
    check(disk)
    seen = raw(disk, tmp_path / "raw")
    assert holds(seen, wanted) == []
    subprocess.run(["/sbin/e2fsck", "-fn", seen], capture_output=True, check=True)
    assert debugfs(seen, f"cat /{KEYS}") == f"{OTHERS}\n"
    assert debugfs(seen, "cat /etc/hostname") == f"{clone}\n"
    assert debugfs(seen, "cat /etc/machine-id") == ""
    for path, text in OPEN.items():
        if path != "etc/hostname":
            assert debugfs(seen, f"cat /{path}") == text
    assert set(SECRETS) & set(debugfs(seen, "ls -p /etc/ssh", "ls /var/lib/cloud").split()) == set()
    site.run("down", "-y", clone)


def test_a_copy_that_stands_alone(site: Site, source: str) -> None:
    full, again = site.name("full"), site.name("again")
    site.run("clone", "--full", "--keep-identity", source, full)
    disks = [site.home / "machines" / name / "root.qcow2" for name in (source, full)]
    compared = ["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2", *disks]
    subprocess.run(compared, check=True)
    info = subprocess.run(
        ["qemu-img", "info", "-f", "qcow2", disks[1]], capture_output=True, text=True, check=True
    )
    assert "backing" not in info.stdout
    assert site.status(full)["drift"] == []
    # What stands alone can be copied, and become an image, as any other.
    site.run("clone", "--keep-identity", full, again)
    image = f"made-{full}"
    site.run("commit", "--keep-identity", full, image)
    site.run("image", "remove", "-y", image)
    site.run("start", full)
    site.run("stop", "--force", full)
    site.run("down", "-y", full, again)


def test_what_cannot_be_cleaned_is_not_made(site: Site, source: str) -> None:
    other, clone = site.name("raid"), site.name("c")
    site.run("clone", "--keep-identity", source, other)
    disk = site.home / "machines" / other / "root.qcow2"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -q -z 0 1M", disk], check=True)
    held = digest(disk)
    refused = " ".join(site.run("clone", other, clone, status=2).err.split())
    assert "there is no system that vmctl can read" in refused
    assert "--keep-identity" in refused
    assert not (site.home / "machines" / clone).exists()
    assert rubbish(site) == []
    assert digest(disk) == held
    site.run("down", "-y", other)


VAR, HOME = "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "6e3a2c1d-0b5f-4a7e-9c8d-112233445566"
FSTAB = f"""# The disks are ours, and what is not is no obstacle.
/dev/vda1 / ext4 defaults 0 1
PARTUUID={VAR} /var ext4 defaults 0 2
UUID={HOME} /home/ auto noauto 0 2
/var/local/root /root none bind 0 0
UUID=11111111-2222-3333-4444-555555555555 /srv xfs defaults 0 2
/dev/mapper/more /opt ext4 defaults 0 2
tmpfs /var/log tmpfs defaults 0 0
server:/dhcp /var/lib/dhcpcd nfs ro 0 0
/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0
"""
ELSEWHERE = {path: text for path, text in SECRETS.items() if path.startswith("var/")}


def planted(tree: pathlib.Path, texts: dict[str, str]) -> pathlib.Path:
    for path, text in texts.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    return tree


def in_parts(scratch: pathlib.Path, key: str) -> pathlib.Path:
    """Return a disk (raw) with /var on one partition and /home on another."""
    keys = f"{OTHERS}\n{key}"
    disk = scratch / "parts"
    with disk.open("wb") as stream:
        stream.truncate(64 << 20)
    table = f"label: gpt\nstart=2048, size=40960, uuid={VAR}\nstart=43008, size=40960\n"
    subprocess.run(["/sbin/sfdisk", "-q", disk], input=table, text=True, check=True)
    var = {path.removeprefix("var/"): text for path, text in ELSEWHERE.items()}
    trees = (
        (1 << 20, VAR.lower(), {**var, "local/root/.ssh/authorized_keys": keys}),
        (21 << 20, HOME, {KEYS.removeprefix("home/"): keys}),
    )
    for number, (offset, identity, texts) in enumerate(trees):
        tree = planted(scratch / f"part-{number}", texts)
        words = ["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-U", identity, "-d", str(tree)]
        subprocess.run([*words, "-E", f"offset={offset}", str(disk), "20M"], check=True)
    return disk


def test_what_lies_on_other_file_systems(site: Site, tmp_path: pathlib.Path) -> None:
    name, clone, image = site.name("parts"), site.name("c"), "made-of-parts"
    system = {path: SECRETS[path] for path in SECRETS if path not in ELSEWHERE}
    passwd = "root:x:0:0::/root:/bin/sh\ndev:x:1000:1000::/home/dev:/bin/sh\n"
    tree = planted(tmp_path / "tree", {**system, "etc/fstab": FSTAB, "etc/passwd": passwd})
    for place in ("var", "home", "root"):
        (tree / place).mkdir()
    words = ["/sbin/mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(tmp_path / "plain"), "32M"]
    subprocess.run(words, check=True)
    base = site.specs / f"{name}.qcow2"
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(tmp_path / "plain"), str(base)]
    subprocess.run(words, check=True)
    path = site.specs / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nimage: {{path: {base.name}, format: qcow2}}\nmemory: 128MiB\nuser: dev\n"
        "accel: tcg\ndevices: virtio\nready: {when: running}\nnetworks: []\n"
        "disks: [{name: more, size: 64MiB}]\n"
    )
    site.run("up", str(path))
    site.run("stop", "--force", name)
    place = site.home / "machines" / name
    parts = in_parts(tmp_path, (place / "id_ed25519.pub").read_text())
    copy = ["qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", parts, place / "more.qcow2"]
    subprocess.run(copy, check=True)
    wanted = secrets(site, name)
    assert len(holds(raw(place / "more.qcow2", tmp_path / "raw"), wanted)) == len(ELSEWHERE) + 1
    site.run("clone", name, clone)
    seen = raw(site.home / "machines" / clone / "root.qcow2", tmp_path / "raw")
    assert holds(seen, wanted) == []
    seen = raw(site.home / "machines" / clone / "more.qcow2", tmp_path / "raw")
    assert holds(seen, wanted) == []
    for offset, keys in (1 << 20, "local/root/.ssh"), (21 << 20, "dev/.ssh"):
        with seen.open("rb") as stream, (tmp_path / "part").open("wb") as part:
            stream.seek(offset)
            part.write(stream.read(20 << 20))
        subprocess.run(["/sbin/e2fsck", "-fn", part.name], capture_output=True, check=True)
        said = debugfs(pathlib.Path(part.name), f"cat /{keys}/authorized_keys")
        assert said == f"{OTHERS}\n"
    site.run("down", "-y", clone)
    # What is on a disk that is not copied is nothing of the image.
    site.run("commit", name, image)
    site.run("image", "remove", "-y", image)
    # What is on one that is, and cannot be read, would be: /home, which holds the login key.
    zeros = ["qemu-io", "-f", "qcow2", "-c", "write -q -z 21M 1M", place / "more.qcow2"]
    subprocess.run(zeros, check=True)
    refused = " ".join(site.run("clone", name, clone, status=2).err.split())
    assert f"'UUID={HOME}', which the system has at '/home', cannot be read" in refused
    assert "--keep-identity" in refused
    assert not (site.home / "machines" / clone).exists()
    site.run("down", "-y", name)


INSIDE = (
    "cat /etc/machine-id; hostname; ls /var/lib/cloud/instances; "
    "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2; ls /etc/ssh/*_key | wc -l; "
    "cut -d' ' -f2 /home/debian/.ssh/authorized_keys; cat /sys/class/net/e*/address; "
    "test -s /var/lib/systemd/random-seed && sha256sum < /var/lib/systemd/random-seed"
)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_debian(site: Site, debian: str, tmp_path: pathlib.Path) -> None:
    name, clone, image = site.name("deb"), site.name("clone"), "made-of-debian"
    path = site.specs / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nproject: {name}\nimage: {debian}\nmemory: 384MiB\n"
        "accel: tcg\ndevices: virtio\n"
    )

    def inside(machine: str) -> list[str]:
        return site.run("exec", "-u", "root", machine, "--", "sh", "-c", INSIDE).out.splitlines()

    site.run("up", str(path))
    before = inside(name)
    site.run("stop", name)
    place = site.home / "machines" / name
    host_key = (place / "ssh_host_ed25519_key").read_text().splitlines()
    login = (place / "id_ed25519.pub").read_text().split()[1]
    words = [login, *host_key[2:-1], before[0]]
    assert holds(raw(place / "root.qcow2", tmp_path / "raw"), words) == sorted(words)
    site.run("clone", name, clone)
    assert holds(raw(site.home / "machines" / clone / "root.qcow2", tmp_path / "raw"), words) == []
    site.run("commit", name, image)
    record = site.run("image", "inspect", image, "--json").json
    made = site.home / "images" / record["digest"] / "disk.qcow2"
    assert holds(raw(made, tmp_path / "raw"), words) == []
    site.run("image", "remove", "-y", image)
    site.run("start", clone)
    after = inside(clone)
    assert len(before) == len(after) == 8
    assert after[1] == clone
    assert (before[4], after[4]) == ("1", "1")
    same = [a for number, (a, b) in enumerate(zip(before, after, strict=True)) if a == b]
    assert same == ["1"]
    site.run("down", "-y", name, clone)
