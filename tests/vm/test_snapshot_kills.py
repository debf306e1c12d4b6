"""SIGKILL at every point of snapshot commands, and a full disk: old or new state, never half."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site
from tests.vm.killing import killed, points
from tests.vm.test_snapshots import DISK, VIRTIO, Guest, boot, check

pytestmark = [pytest.mark.long, pytest.mark.vm, pytest.mark.timeout(1500)]

SOME = [pytest.param(False, id="some"), pytest.param(True, id="all", marks=pytest.mark.soak)]


@pytest.fixture(scope="module")
def guest(site: Site, connection: libvirt.virConnect) -> Iterator[Guest]:
    path, guest = boot(site, connection)
    yield guest
    site.run("down", "-y", path)


def tags(guest: Guest) -> list[str]:
    """Return the snapshots in the image of a stopped machine."""
    said = subprocess.run(
        ["qemu-img", "snapshot", "-l", guest.disk], capture_output=True, text=True, check=True
    )
    return [line.split()[1] for line in said.stdout.splitlines()[2:]]


@pytest.mark.parametrize("every", SOME)
@pytest.mark.parametrize("how", [(), ("--disks",)], ids=["memory", "disks"])
def test_create(site: Site, guest: Guest, every: bool, how: tuple[str, ...]) -> None:
    site.run("start", guest.name)
    guest.write("one")
    deaths = 0
    for when, moment in points(every):
        words = ("snapshot", "create", *how, guest.name, "it")
        if not killed(site, when, moment, *words):
            break
        deaths += 1
        again = site.run(*words, status=None)
        assert again.status in (0, 4), (when, moment, again)
        assert guest.names() == ["it"]
        status = site.status(guest.name)
        assert (status["state"], status["interrupted"]) == ("running", ""), (when, moment)
        assert guest.read() == ("one", "one")
        guest.snapshot("delete", "-y", guest.name, "it")
    assert deaths > 2
    guest.snapshot("delete", "-y", guest.name, "it")
    site.run("stop", guest.name)
    assert tags(guest) == []
    check(guest.disk)


@pytest.mark.parametrize("every", SOME)
@pytest.mark.parametrize("running", [True, False], ids=["in-place", "new-qemu"])
def test_restore(site: Site, guest: Guest, every: bool, running: bool) -> None:
    site.run("start", guest.name)
    guest.write("one")
    guest.snapshot("create", guest.name, "it")
    deaths = 0
    for when, moment in points(every):
        guest.write("two")
        if not running:
            site.run("stop", "--force", guest.name)
        words = ("snapshot", "restore", "-y", "--no-safety", guest.name, "it")
        if not killed(site, when, moment, *words):
            break
        deaths += 1
        if site.status(guest.name)["interrupted"] == "restore":
            site.run("start", guest.name, status=4)
            site.run("resume", guest.name, status=None)
            guest.snapshot("create", guest.name, "other", status=4)
            guest.snapshot("delete", "-y", guest.name, "it", status=4)
            site.run(*words)
            assert guest.read() == ("one", "one"), (when, moment)
        elif running:
            site.run("start", guest.name)
            assert guest.read() in (("one", "one"), ("two", "two")), (when, moment)
        site.run("start", guest.name)
        assert site.status(guest.name)["interrupted"] == ""
        assert guest.names() == ["it"]
    assert deaths > 2
    assert guest.read() == ("one", "one")
    guest.snapshot("delete", "-y", guest.name, "it")
    site.run("stop", guest.name)
    check(guest.disk)


@pytest.mark.parametrize("every", SOME)
def test_delete(site: Site, guest: Guest, every: bool) -> None:
    site.run("start", guest.name)
    guest.write("one")
    guest.snapshot("create", guest.name, "stays")
    deaths = 0
    for when, moment in points(every):
        guest.snapshot("create", "--disks", guest.name, "goes")
        words = ("snapshot", "delete", "-y", guest.name, "goes")
        if not killed(site, when, moment, *words):
            break
        deaths += 1
        assert site.run(*words, status=None).status in (0, 3), (when, moment)
        assert guest.names() == ["stays"]
    assert deaths > 2
    guest.snapshot("restore", "-y", "--no-safety", guest.name, "stays")
    assert guest.read() == ("one", "one")
    guest.snapshot("delete", "-y", guest.name, "stays")
    site.run("stop", guest.name)
    assert tags(guest) == []
    check(guest.disk)


@pytest.fixture
def small(site: Site, tmp_path: pathlib.Path) -> Iterator[Site]:
    """A store on a file system that has room for a machine, but not for its memory."""
    home = pathlib.Path("/var/tmp") / f"vmctl-small-{tmp_path.name}"
    home.mkdir(mode=0o711)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m,mode=711", "tmpfs", home], check=True)
    try:
        (home / "images").mkdir(mode=0o711)
        (home / "image-names").mkdir(mode=0o711)
        record = shutil.copy(site.home / "image-names" / "tiny.json", home / "image-names")
        digest = json.loads(pathlib.Path(record).read_text())["digest"]
        shutil.copytree(site.home / "images" / digest, home / "images" / digest)
        small = Site(home, site.uri)
        yield small
        small.clear()
    finally:
        subprocess.run(["umount", "-l", home], check=True)
        home.rmdir()


WITHOUT_A_LOOK = (
    "import sys, vmctl.lifecycle.snapshots as s; s.require_room = lambda *_: None; "
    "sys.argv = ['vmctl', *sys.argv[1:]]; from vmctl.cli import main; main()"
)


def test_no_room(small: Site, connection: libvirt.virConnect) -> None:
    path, guest = boot(small, connection, VIRTIO + DISK)
    guest.write("one")
    refused = guest.snapshot("create", guest.name, "one", status=5)
    assert "left" in refused.err
    # Without the look beforehand the disk fills up in the middle.
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_LOOK, "snapshot", "create", guest.name, "one"],
        env=small.env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert guest.names() == []
    assert small.status(guest.name)["interrupted"] == ""
    subprocess.run(["mount", "-o", "remount,size=400m", small.home], check=True)
    if small.status(guest.name)["state"] == "paused":
        small.run("resume", guest.name)
    assert guest.read() == ("one", "one")
    guest.snapshot("create", guest.name, "one")
    guest.write("two")
    guest.snapshot("restore", "-y", "--no-safety", guest.name, "one")
    assert guest.read() == ("one", "one")
    guest.snapshot("delete", "-y", guest.name, "one")
    # What was loaded last still lies in the disk, until memory is kept again.
    guest.snapshot("create", guest.name, "two")
    guest.snapshot("delete", "-y", guest.name, "two")
    small.run("stop", guest.name)
    check(guest.disk)
    assert guest.disk.stat().st_blocks * 512 < 16 << 20
    small.run("down", "-y", path)
