"""Provision steps on a disk: restarts between them, and what snapshots and clones know of them.

The guest is a container's files: a disk, ssh, and a start in seconds.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator

import pytest

from tests.images import containers
from tests.vm.conftest import PATIENCE, Site
from tests.vm.test_image_store import BUSYBOX

pytestmark = pytest.mark.vm

IMAGE = "rebooted"
STEP = "echo {0} >> /done; cat /proc/sys/kernel/random/boot_id >> /starts; cat /src/hello >> /done"


@pytest.fixture(scope="module")
def image(site: Site) -> str:
    layer = containers.layer(
        containers.directory("bin"),
        containers.file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
        containers.symlink("bin/sh", "busybox"),
    )
    archive = site.specs / f"{IMAGE}.tar"
    containers.saved(archive, layer, Entrypoint=["/bin/busybox", "sleep", "1000000"], Cmd=None)
    site.run("image", "import", IMAGE, str(archive))
    return IMAGE


@pytest.fixture
def place() -> Iterator[pathlib.Path]:
    """A directory outside of the store, which no machine gets."""
    made = pathlib.Path(tempfile.mkdtemp(prefix="vmctl-reboot-", dir="/var/tmp"))
    made.chmod(0o755)
    (made / "src").mkdir()
    (made / "src" / "hello").write_text("hello\n")
    yield made
    shutil.rmtree(made)


def begun(path: pathlib.Path) -> bool:
    """Tell whether a restart has begun."""
    try:
        return bool(json.loads(path.read_text())["leaving"])
    except (OSError, ValueError):
        return False


@pytest.mark.long
def test_a_restart_between_steps_and_a_kill_meanwhile(
    site: Site, image: str, place: pathlib.Path
) -> None:
    name = site.name("again")
    path = place / "vmctl.yaml"
    steps = [{"name": word, "script": STEP.format(word)} for word in ("one", "two")]
    spec = {
        "name": name,
        "project": name,
        "image": image,
        "memory": "192MiB",
        # Its kernel is started by firmware here: that way it must work as well.
        "firmware": "uefi",
        "accel": "tcg",
        "devices": "virtio",
        "mounts": [{"host": "./src", "guest": "/src"}],
        "provision": [{**step, "reboot": step["name"] == "one"} for step in steps],
    }
    path.write_text(json.dumps(spec))
    inside = site.home / "machines" / name / "inside.json"
    first = site.start("up", str(path))
    end = time.monotonic() + PATIENCE
    while not begun(inside):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert site.status(name)["provisioned"] == "failed"

    said = " ".join(site.run("up", str(path)).err.split())
    assert "provision 1/2" not in said
    assert said.count("reboot") == 1
    found = site.run("exec", name, "--", "cat", "/done", "/starts").out.split()
    assert found[:4] == ["one", "hello", "two", "hello"]
    assert len(found[4:]) == len(set(found[4:])) == 2
    status = site.status(name)
    assert (status["provisioned"], status["ready"], status["drift"]) == ("yes", True, [])
    assert "provision" not in site.run("up", str(path)).err
    log = site.run("exec", name, "--", "sh", "-c", "[ -d /sys/firmware/efi ] && echo uefi").out
    assert log == "uefi\n"
    site.run("down", "-y", name)


@pytest.mark.long
def test_a_snapshot_and_a_clone_know_which_steps_were_done(site: Site, image: str) -> None:
    name, now, then = (site.name(stem) for stem in ("steps", "now", "then"))
    path = site.specs / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nproject: {name}\nimage: {image}\nmemory: 160MiB\n"
        "accel: tcg\ndevices: virtio\n"
        "provision: [{script: echo once >> /done}, {script: echo twice >> /done}]\n"
    )

    def provisioned(machine: str) -> str:
        return str(site.status(machine)["provisioned"])

    site.run("up", "--no-provision", str(path))
    site.run("snapshot", "create", name, "bare")
    assert provisioned(name) == "no"
    site.run("up", str(path))
    site.run("snapshot", "create", "--disks", name, "done")
    assert provisioned(name) == "yes"
    # Back in time: what was done since is not done any more, on the disk as in the store.
    site.run("snapshot", "restore", "-y", "--no-safety", name, "bare")
    assert provisioned(name) == "no"
    assert site.run("exec", name, "--", "ls", "/done", status=None).status != 0
    assert "provision 1/2" in site.run("up", str(path)).err
    assert site.run("exec", name, "--", "cat", "/done").out == "once\ntwice\n"
    # Forth again, with a new start of the guest.
    site.run("snapshot", "restore", "-y", "--no-safety", name, "bare")
    site.run("snapshot", "restore", "-y", "--no-safety", name, "done")
    assert provisioned(name) == "yes"
    assert "provision" not in site.run("up", str(path)).err
    assert site.run("exec", name, "--", "cat", "/done").out == "once\ntwice\n"
    site.run("stop", name)
    site.run("clone", name, now)
    site.run("clone", "--snapshot", "bare", name, then)
    assert (provisioned(now), provisioned(then)) == ("yes", "no")
    assert "no boot loader" in site.run("commit", name, "made", status=2).err.replace("\n", " ")
    site.run("down", "-y", name, now, then)


def test_a_guest_in_memory_is_not_restarted(site: Site) -> None:
    path, name = site.spec("mode: full\nprovision: [{script: 'true', reboot: true}]\n")
    refused = " ".join(site.run("up", path, status=2).err.split())
    assert "lives in memory" in refused
    assert not (site.home / "machines" / name).exists()
