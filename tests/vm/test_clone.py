"""save, clone, commit, the snapshot before `up`: what goes on, and what is a thing of its own."""

from __future__ import annotations

import pathlib
import subprocess
import time
from collections.abc import Iterator

import libvirt
import pytest

from tests.vm.conftest import Site
from tests.vm.test_snapshots import COUNTER, DISK, VIRTIO, Guest, boot, check, digest

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def machine(site: Site, connection: libvirt.virConnect) -> Iterator[tuple[str, Guest]]:
    path, guest = boot(site, connection)
    yield path, guest
    site.run("down", "-y", path)


def test_saved_and_going_on(site: Site, machine: tuple[str, Guest]) -> None:
    path, guest = machine
    site.run("start", guest.name)
    guest.write("one")
    guest.run(COUNTER)
    uptime = guest.uptime()
    before = site.status(guest.name)["forwards"]
    site.run("save", guest.name)
    site.run("save", guest.name)
    listed = {row["name"]: row["state"] for row in site.run("ps", "-a", "--json").json}
    assert listed[guest.name] == "saved"
    held = digest(guest.disk)
    guest.snapshot("create", guest.name, "no", status=4)
    site.run("clone", guest.name, "no-clone", status=4)
    assert digest(guest.disk) == held
    site.run("up", path)
    assert guest.read() == ("one", "one")
    assert guest.uptime() > uptime
    assert abs(int(guest.run("date +%s")) - time.time()) < 10
    status = site.status(guest.name)
    assert (status["ready"], status["drift"], status["forwards"]) == (True, [], before)
    guest.run("pkill -f usleep")
    # Thrown away: the next start is a boot.
    site.run("save", guest.name)
    site.run("stop", "--force", guest.name)
    assert site.status(guest.name)["state"] == "stopped"
    site.run("start", guest.name)
    assert guest.read() == ("one", "")


def content(site: Site, name: str, scratch: pathlib.Path) -> str:
    """Return what a stopped machine's file on its disk says, whatever is in memory."""
    disk = site.home / "machines" / name / "data.qcow2"
    words = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, scratch / "raw"]
    subprocess.run(words, check=True)
    # What the journal holds is put where it belongs.
    subprocess.run(["/sbin/e2fsck", "-p", scratch / "raw"], check=False, capture_output=True)
    words = ["/sbin/debugfs", "-R", "cat /file", scratch / "raw"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_a_clone_is_a_machine_of_its_own(
    site: Site, machine: tuple[str, Guest], tmp_path: pathlib.Path
) -> None:
    _, guest = machine
    site.run("start", guest.name)
    guest.write("one")
    guest.snapshot("create", guest.name, "then")
    guest.write("two")
    site.run("clone", guest.name, site.name("c"), status=4)
    site.run("stop", guest.name)
    held = digest(guest.disk)
    now, then = site.name("now"), site.name("then")
    site.run("clone", guest.name, now)
    site.run("clone", guest.name, now, status=4)
    site.run("clone", "--snapshot", "then", guest.name, then)
    assert digest(guest.disk) == held
    sources = [site.status(name)["machine"] for name in (guest.name, now, then)]
    assert len({source["uuid"] for source in sources}) == 3
    assert len({source["nics"][0]["mac"] for source in sources}) == 3
    assert content(site, then, tmp_path) == "one\n"
    keys = [site.home / "machines" / each / "id_ed25519" for each in (guest.name, now, then)]
    assert len({digest(key) for key in keys}) == 3
    site.run("start", now)
    other = Guest(site, guest.connection, now)
    assert other.read() == ("two", "")
    assert other.run("hostname").strip() == now
    other.require_sound()
    assert other.names() == []
    site.run("down", "-y", now, then)
    guest.snapshot("delete", "-y", guest.name, "then")


def test_an_image_of_a_machine(site: Site, tmp_path: pathlib.Path) -> None:
    base = site.specs / f"base-{tmp_path.name}.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "16M"], check=True)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 1M", base], check=True)
    source, other, image = site.name("s"), site.name("o"), f"made-{tmp_path.name.strip('_')[-8:]}"
    image = "".join(letter for letter in image.lower() if letter.isalnum() or letter == "-")
    text = "memory: 128MiB\naccel: tcg\ndevices: virtio\nready: {when: running}\nnetworks: []\n"
    path = site.specs / f"{source}.yaml"
    path.write_text(f"name: {source}\nimage: {{path: {base.name}, format: qcow2}}\n{text}")
    site.run("up", str(path))
    site.run("commit", source, image, status=4)
    site.run("stop", "--force", source)
    disk = site.home / "machines" / source / "root.qcow2"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -q -P 2 1M 1M", disk], check=True)
    site.run("commit", "--keep-identity", source, image)
    refused = site.run("commit", source, image, status=4)
    assert "copy" not in refused.err
    listed = {row["name"]: row for row in site.run("image", "list", "--json").json}
    assert source in listed[image]["description"]
    spec = site.specs / f"{other}.yaml"
    spec.write_text(f"name: {other}\nimage: {image}\n{text}")
    site.run("up", str(spec))
    site.run("stop", "--force", other)
    made = site.home / "machines" / other / "root.qcow2"
    same = subprocess.run(
        ["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", disk, made], check=False
    )
    assert same.returncode == 0
    check(made)
    for each in (path, spec):
        site.run("down", "-y", str(each))


def test_kept_before_up_changes_it(site: Site, connection: libvirt.virConnect) -> None:
    text = VIRTIO + DISK + "snapshots: {before_up: true, keep: 2}\n"
    path, guest = boot(site, connection, text)
    assert guest.names() == []
    site.run("up", path)
    assert guest.names() == []
    for number in range(3):
        spec = pathlib.Path(path).read_text()
        pathlib.Path(path).write_text(spec.replace(f"{128 + number}MiB", f"{129 + number}MiB"))
        guest.write(str(number))
        site.run("up", path)
    assert guest.names() == ["before-up-2", "before-up-3"]
    guest.snapshot("restore", "-y", guest.name, "before-up-2")
    assert guest.read() == ("1", "1")
    site.run("snapshot", "prune", "-y", "--keep", "1", guest.name)
    assert guest.names() == ["before-restore-1"]
    site.run("down", "-y", path)
