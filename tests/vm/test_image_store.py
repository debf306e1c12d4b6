"""Images of users' own with machines on them: containers that boot, and removal that is refused."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess
import time
from typing import Any

import pytest

from tests.images.containers import saved
from tests.vm.conftest import PATIENCE, Site

pytestmark = pytest.mark.vm

PROGRAM = """#!/bin/sh
echo "arguments: $0 $*"
echo "account: $(id)"
echo "directory: $(pwd)"
echo "greeting: $GREETING"
tr '\\0' '\\n' < /proc/self/environ | grep A-B
echo "files: $(ls -d /data/* /opaque/* | tr '\\n' ' ')"
echo "modes: $(stat -c '%u:%g:%a' /home/app /bin/helper | tr '\\n' ' ')"
echo "shared: $(stat -c %h /hard1) $(cat /hard2)"
echo "names: $(hostname) $(cat /etc/hostname)"
echo to-stdout > /dev/stdout
trap 'echo "asked to end"; exit 0' USR1
echo "program is up"
while :; do
    read -t 1 line && [ "$line" = fail ] && exit 3
done
"""
"""What runs in the container: it says where it is, and as whom."""

BUSYBOX = next(
    path
    for path in (pathlib.Path("/bin/busybox"), pathlib.Path("/usr/bin/busybox"))
    if path.exists()
)
APPLETS = ("sh", "id", "tr", "grep", "ls", "stat", "cat", "hostname", "echo")


def tool(*words: str | os.PathLike[str], cwd: pathlib.Path) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=120, cwd=cwd)


def require(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"this distribution has no {program}")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An OCI image layout made by umoci: two layers, the second with whiteouts."""
    require("umoci")
    top = tmp_path_factory.mktemp("umoci")
    image, bundle = ("--image", "layout:app"), top / "bundle"
    tool("umoci", "init", "--layout", "layout", cwd=top)
    tool("umoci", "new", *image, cwd=top)
    rootless = () if os.geteuid() == 0 else ("--rootless",)
    tool("umoci", "unpack", *rootless, *image, "bundle", cwd=top)
    root = bundle / "rootfs"
    for name in ("bin", "etc", "data/old", "opaque/sub", "home/app"):
        (root / name).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(BUSYBOX.read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    accounts = "root:x:0:0:root:/root:/bin/sh\napp:x:1234:1234::/home/app:/bin/sh\n"
    (root / "etc/passwd").write_text(accounts)
    (root / "etc/group").write_text("root:x:0:\napp:x:1234:\nextra:x:77:app\n")
    os.chown(root / "home/app", 1234, 1234)
    for name in ("data/old/file", "data/kept", "opaque/lower", "opaque/sub/file", "gone"):
        (root / name).write_text("x")
    (root / "program").write_text(PROGRAM)
    (root / "program").chmod(0o755)
    (root / "bin/helper").write_text("x")
    (root / "bin/helper").chmod(0o4755)
    (root / "hard1").write_text("linked")
    os.link(root / "hard1", root / "hard2")
    tool("umoci", "repack", *image, "bundle", cwd=top)
    tool("rm", "-r", "bundle", cwd=top)
    tool("umoci", "unpack", *rootless, *image, "bundle", cwd=top)
    tool("rm", "-r", "gone", "data/old", "opaque", cwd=root)
    (root / "opaque").mkdir()
    (root / "opaque/upper").write_text("x")
    tool("umoci", "repack", *image, "bundle", cwd=top)
    settings = {
        "entrypoint": "/program",
        "cmd": "two words",
        "env": 'GREETING=it\'s "hello"',
        "workingdir": "/home/app",
        "user": "app",
        "stopsignal": "SIGUSR1",
    }
    words = [word for key, value in settings.items() for word in (f"--config.{key}", value)]
    tool("umoci", "config", *image, *words, "--config.env", "A-B=odd", cwd=top)
    return top / "layout"


def listed(site: Site, name: str) -> Any:
    (found,) = [item for item in site.run("image", "list", "--json").json if item["name"] == name]
    return found


def spec(site: Site, image: str, text: str = "accel: tcg\ndevices: virtio\n") -> tuple[str, str]:
    name = site.name("image")
    path = site.specs / f"{name}.yaml"
    path.write_text(f"name: {name}\nproject: {name}\nimage: {image}\nmemory: 160MiB\n{text}")
    return str(path), name


def lines(site: Site, name: str, wanted: str, count: int = 1) -> list[str]:
    """Return the console's log as soon as a line is in it so many times."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = site.run("logs", name).out.replace("\r", "").splitlines()
        if found.count(wanted) >= count:
            return found
        time.sleep(0.2)
    raise AssertionError(f"'{wanted}' is not among {found}")


def test_a_container_is_a_machine(site: Site, layout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    site.run("image", "import", "container", str(layout))
    path, name = spec(site, "container", "accel: tcg\ndevices: virtio\ndisk: 1GiB\n")
    assert "ready" in site.run("up", path).err
    log = lines(site, name, "program is up")
    assert log.index("vmctl-container: ready") < log.index("program is up")
    for line in (
        "arguments: /program two words",
        "account: uid=1234(app) gid=1234(app) groups=77(extra),1234(app)",
        "directory: /home/app",
        'greeting: it\'s "hello"',
        "files: /data/kept /opaque/upper ",
        "modes: 1234:1234:755 0:0:4755 ",
        "shared: 2 linked",
        f"names: {name} {name}",
        "to-stdout",
    ):
        assert line in log
    assert any(line.startswith("vmctl-container: net eth0 virtio_net 10.") for line in log)

    inside = site.run(
        "exec",
        name,
        "--",
        "sh",
        "-c",
        "id -un; cat /opaque/upper; echo; awk 'END{print 6*7}' /etc/hosts",
    )
    assert inside.out.split() == ["root", "x", "42"], "awk is busybox's, which the image lacks"

    item = listed(site, "container")
    assert (item["kind"], item["machines"]) == ("imported", [name])
    told = site.run("image", "remove", "-y", "container", status=4).err
    assert f"in use by machine '{name}'" in told and f"vmctl down {name}" in told
    tree = site.run("image", "tree").out
    assert f"container  {item['digest'][:12]}" in tree
    assert f"{name}  root" in tree and "2 of at most 16 files deep" in tree

    # The program ends with a failure, and is started again; asked by the power button, it ends.
    with subprocess.Popen(
        site.command("console", "--force", "-q", name), env=site.env, stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as console:  # fmt: skip
        assert console.stdin is not None
        console.stdin.write(b"fail\n")
        console.stdin.flush()
        log = lines(site, name, "program is up", 2)
        console.kill()
    assert "vmctl-container: the program ended with status 3" in log
    site.run("stop", name)
    assert "asked to end" in lines(site, name, "asked to end")
    assert site.status(name)["state"] == "stopped"

    # A record that is lost does not make the image free: the overlay says what it lies on.
    (site.home / "machines" / name / "machine.json").unlink()
    assert name in site.run("image", "remove", "-y", "container", status=4).err
    site.run("down", "-y", name)
    twin = saved(tmp_path / "twin.tar")
    assert site.run("image", "import", "container", str(twin), status=4)
    site.run("image", "remove", "-y", "container")
    assert not (site.home / "images" / item["digest"]).exists()
    assert "There is no image 'container'" in site.run("up", path, status=2).err


def test_a_container_boots_in_full_emulation_and_ends_with_its_program(
    site: Site, tmp_path: pathlib.Path
) -> None:
    """A program of root's without an account file, from what buildah writes for docker."""
    require("buildah")
    context = tmp_path / "context"
    context.mkdir()
    (context / "busybox").write_bytes(BUSYBOX.read_bytes())
    (context / "busybox").chmod(0o755)
    archive = tmp_path / "app.tar"
    buildah = ("buildah", "--root", str(tmp_path / "store"), "--runroot", str(tmp_path / "run"))
    buildah += ("--storage-driver", "vfs")
    made = subprocess.run(
        [*buildah, "from", "scratch"], check=True, capture_output=True, text=True, timeout=120
    ).stdout.strip()
    tool(*buildah, "copy", made, str(context / "busybox"), "/bin/busybox", cwd=tmp_path)
    script = "/bin/busybox id; /bin/busybox echo work is done"
    command = f'["/bin/busybox", "sh", "-c", "{script}"]'
    tool(*buildah, "config", "--cmd", command, "--user", "4321", made, cwd=tmp_path)
    tool(*buildah, "commit", made, "app", cwd=tmp_path)
    tool(*buildah, "push", "app", f"docker-archive:{archive}:app:1", cwd=tmp_path)

    site.run("image", "import", "scratch", str(archive))
    path, name = spec(site, "scratch", "mode: full\n")
    site.run("up", path, status=None)
    log = lines(site, name, "vmctl-container: the program ended with status 0")
    assert "uid=4321(vmctl) gid=0" in log[log.index("work is done") - 1]
    end = time.monotonic() + PATIENCE
    while site.status(name)["state"] != "stopped" and time.monotonic() < end:
        time.sleep(0.2)
    assert site.status(name)["state"] == "stopped"
    site.run("down", "-y", name)
    site.run("image", "remove", "-y", "scratch")


def test_prune_spares_what_is_used_and_clears_the_rest(site: Site, tmp_path: pathlib.Path) -> None:
    disk = site.specs / "pruned.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", disk, "32M", cwd=tmp_path)
    digest = hashlib.sha256(disk.read_bytes()).hexdigest()
    name = site.name("prune")
    path = site.specs / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nproject: {name}\nmemory: 128MiB\nmode: full\nready: {{when: running}}\n"
        f"image: {{path: ./{disk.name}, format: qcow2}}\n"
    )
    site.run("up", str(path))
    disk.unlink()
    half_made = site.home / "images" / ".tmp-something-0123abcd"
    half_made.mkdir()
    (half_made / "disk.raw").write_bytes(b"x" * 100_000)
    unnamed = site.home / "images" / ("cd" * 32)
    unnamed.mkdir()

    shown = site.run("image", "prune", "--dry-run", "--json").json
    kinds = {item["what"] for item in shown["found"]}
    assert {"image that nobody names", "what a killed command left"} <= kinds
    assert digest not in {item["name"] for item in shown["found"]}, "a machine is on it"
    assert half_made.exists() and unnamed.exists(), "--dry-run removes nothing"
    assert "bytes) are free again" in site.run("image", "prune", "-y").err
    assert not half_made.exists() and not unnamed.exists()
    assert (site.home / "images" / digest).exists()
    assert site.status(name)["state"] == "running"
    site.run("down", "-y", name)
    site.run("image", "prune", "-y")
    assert not (site.home / "images" / digest).exists()
    assert "tiny" in {item["name"] for item in site.run("image", "list", "--json").json}


def test_a_machine_without_a_disk_keeps_its_image(site: Site) -> None:
    name = site.up()
    (site.home / "machines" / name / "machine.json").unlink()
    refused = site.run("image", "remove", "-y", "tiny", status=4).err
    assert "in use by machine" in refused
    assert f"'{name}'" in refused
    assert f"{name}  its kernel" in site.run("image", "tree").out
    site.run("down", "-y", name)


def test_up_and_remove_at_once(site: Site, tmp_path: pathlib.Path) -> None:
    """Whoever comes second sees the other: never does a machine run on an image that is gone."""
    disk = tmp_path / "raced.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", disk, "32M", cwd=tmp_path)
    outcomes = set()
    for delay in (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6):
        site.run("image", "import", "raced", str(disk), "--format", "qcow2", "--replace")
        path, name = spec(site, "raced", "mode: full\nready: {when: running}\n")
        going = site.start("up", path)
        time.sleep(delay)
        removal = site.run("image", "remove", "-y", "raced", status=None)
        _, told = going.communicate(timeout=PATIENCE)
        outcomes.add((going.returncode, removal.status))
        there = site.run("image", "list", "--json").json
        present = any(item["name"] == "raced" for item in there)
        if going.returncode == 0:
            assert present and removal.status == 4, (removal, told)
            assert site.status(name)["state"] == "running"
        else:
            assert going.returncode in (2, 4), told
            assert removal.status in (0, 4), removal
        site.run("down", "-y", name, status=None)
    assert outcomes <= {(0, 4), (2, 0), (4, 0), (4, 4), (2, 4)}
