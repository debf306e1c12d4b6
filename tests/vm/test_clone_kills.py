"""SIGKILL in clone, commit, save and prune, and full disks: old or new state, and nothing left."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Iterator

import libvirt
import pytest

from tests.vm.conftest import Site
from tests.vm.killing import killed, points, rubbish
from tests.vm.test_snapshots import Guest, boot, check, digest

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1500)]

FEW = pytest.param(13, id="few")
SOME = pytest.param(7, id="some", marks=pytest.mark.long)
ALL = pytest.param(1, id="all", marks=pytest.mark.soak)
"""Every n-th point at which a command can die."""

SAVED = pathlib.Path("/var/lib/libvirt/qemu/save")


@pytest.fixture(scope="module")
def machine(site: Site, connection: libvirt.virConnect) -> Iterator[tuple[str, Guest]]:
    path, guest = boot(site, connection)
    yield path, guest
    site.run("down", "-y", path)


@pytest.fixture
def guest(site: Site, machine: tuple[str, Guest]) -> Guest:
    """The machine, running."""
    site.run("start", machine[1].name)
    return machine[1]


@pytest.mark.parametrize("step", [FEW, ALL])
def test_save(site: Site, guest: Guest, step: int) -> None:
    guest.write("one")
    uptime, deaths = guest.uptime(), 0
    for when, moment in points(step == 1, step):
        if not killed(site, when, moment, "save", guest.name):
            break
        deaths += 1
        assert site.status(guest.name)["state"] in ("running", "saved"), (when, moment)
        site.run("save", guest.name)
        assert site.status(guest.name)["state"] == "saved"
        site.run("start", guest.name)
        assert guest.read() == ("one", "one"), (when, moment)
    assert deaths > 0
    site.run("start", guest.name)
    assert guest.read() == ("one", "one")
    assert guest.uptime() >= uptime
    assert site.status(guest.name)["interrupted"] == ""


@pytest.mark.parametrize("step", [FEW, ALL])
def test_going_on(site: Site, guest: Guest, step: int) -> None:
    guest.write("one")
    deaths = 0
    for when, moment in points(step == 1, step):
        site.run("save", guest.name)
        if not killed(site, when, moment, "start", guest.name):
            break
        deaths += 1
        site.run("start", guest.name)
        assert guest.read() == ("one", "one"), (when, moment)
    assert deaths > 0
    assert site.status(guest.name)["interrupted"] == ""


@pytest.mark.parametrize("step", [SOME, ALL])
def test_prune(site: Site, guest: Guest, step: int) -> None:
    guest.write("one")
    guest.snapshot("create", guest.name, "stays")
    deaths = 0
    for when, moment in points(step == 1, step):
        for _ in range(2 - len(guest.names()) + 1):
            guest.snapshot("restore", "-y", guest.name, "stays")
        assert len(guest.names()) == 3
        if not killed(site, when, moment, "snapshot", "prune", "-y", guest.name):
            break
        deaths += 1
        # The guest may stand still until the next command finishes what was begun.
        site.run("snapshot", "prune", "-y", "--keep", "1", guest.name)
        assert guest.read() == ("one", "one"), (when, moment)
        assert guest.names()[0] == "stays"
        assert len(guest.names()) in (1, 2)
        assert site.status(guest.name)["interrupted"] == ""
    assert deaths > 0
    site.run("snapshot", "prune", "-y", guest.name)
    assert guest.names() == ["stays"]
    guest.snapshot("restore", "-y", "--no-safety", guest.name, "stays")
    assert guest.read() == ("one", "one")
    guest.snapshot("delete", "-y", guest.name, "stays")
    assert site.status(guest.name)["interrupted"] == ""


@pytest.mark.parametrize("step", [FEW, SOME, ALL])
def test_clone(site: Site, guest: Guest, step: int) -> None:
    guest.write("one")
    site.run("stop", guest.name)
    held, clone, deaths = digest(guest.disk), site.name("c"), 0
    place = site.home / "machines" / clone
    for when, moment in points(step == 1, step):
        if not killed(site, when, moment, "clone", guest.name, clone):
            break
        deaths += 1
        assert digest(guest.disk) == held
        # Odd deaths are put right by the same command, even ones by `gc`. Where the machine was
        # there already, `down` takes it away.
        if deaths % 2:
            made = site.run("clone", guest.name, clone, status=None)
            assert made.status in (0, 4), (when, moment, made)
            site.run("start", clone)
            assert Guest(site, guest.connection, clone).read() == ("one", ""), (when, moment)
        else:
            site.run("gc", "-y", "--data", clone)
        site.run("down", "-y", clone, status=None)
        assert not place.exists(), (when, moment)
        assert rubbish(site) == []
    assert deaths > 0
    site.run("down", "-y", clone)
    assert digest(guest.disk) == held


@pytest.fixture(scope="module")
def lonely(site: Site) -> Iterator[str]:
    """A stopped machine on a disk image of the user's own."""
    name = site.name("own")
    base = site.specs / f"{name}.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "64M"], check=True)
    path = site.specs / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nimage: {{path: {base.name}, format: qcow2}}\nmemory: 128MiB\n"
        "accel: tcg\ndevices: virtio\nready: {when: running}\nnetworks: []\n"
    )
    site.run("up", str(path))
    site.run("stop", "--force", name)
    disk = site.home / "machines" / name / "root.qcow2"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -q -P 7 0 40M", disk], check=True)
    yield name
    site.run("down", "-y", name)


@pytest.mark.parametrize("step", [FEW, SOME, ALL])
def test_commit(site: Site, lonely: str, step: int) -> None:
    disk = site.home / "machines" / lonely / "root.qcow2"
    held, image, deaths = digest(disk), f"made-{lonely}", 0
    words = ("commit", "--keep-identity", lonely, image)

    def names() -> list[str]:
        return [row["name"] for row in site.run("image", "list", "--json").json]

    for when, moment in points(step == 1, step):
        if not killed(site, when, moment, *words):
            break
        deaths += 1
        done = site.run(*words, status=None)
        assert done.status == (0 if "copy" in done.err else 4), (when, moment, done)
        assert image in names()
        site.run("image", "remove", "-y", image)
        assert digest(disk) == held
        assert rubbish(site) == []
    assert deaths > 0
    made = site.run("image", "inspect", image, "--json").json
    check(site.home / "images" / made["digest"] / "disk.qcow2")
    site.run("image", "remove", "-y", image)


@pytest.fixture
def full(site: Site, lonely: str) -> Iterator[None]:
    """Machines lie on a file system with a few MiB left; only one is there."""
    room = site.home / "machines"
    kept = room.with_name("machines-kept")
    room.rename(kept)
    room.mkdir(mode=0o711)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=56m,mode=711", "tmpfs", room], check=True)
    try:
        subprocess.run(["cp", "-a", kept / lonely, room], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", room], check=True)
        room.rmdir()
        kept.rename(room)


def test_no_room_for_a_copy(site: Site, lonely: str, full: None) -> None:
    place = site.home / "machines"
    held, before = digest(place / lonely / "root.qcow2"), sorted(place.rglob("*"))
    clone, image = site.name("c"), f"made-{lonely}"
    for words in (
        ("clone", "--keep-identity", lonely, clone),
        ("clone", "--full", "--keep-identity", lonely, clone),
        ("clone", lonely, clone),
        ("commit", "--keep-identity", lonely, image),
    ):
        said = " ".join(site.run(*words, status=5).err.split())
        assert "No space left" in said
        assert sorted(place.rglob("*")) == before
        assert digest(place / lonely / "root.qcow2") == held
    assert image not in [row["name"] for row in site.run("image", "list", "--json").json]
    assert site.run("gc", "--json", lonely, clone).json == []


@pytest.mark.long
def test_no_room_for_the_memory(site: Site, guest: Guest) -> None:
    guest.write("one")
    uptime = guest.uptime()
    SAVED.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", SAVED], check=True)
    try:
        refused = site.run("save", guest.name, status=None)
    finally:
        subprocess.run(["umount", "-l", SAVED], check=True)
    assert refused.status in (1, 5)
    assert "room" in refused.err or "space" in refused.err, refused
    assert site.status(guest.name)["state"] == "running"
    assert guest.read() == ("one", "one")
    assert guest.uptime() > uptime
    assert not (site.home / "machines" / guest.name / "saved.json").exists()
