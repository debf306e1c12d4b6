"""Backups of real guests: what comes back is what was there, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import libvirt
import pytest

from tests.vm import backing
from tests.vm.conftest import PATIENCE, Site
from tests.vm.killing import killed, points, rubbish
from tests.vm.test_snapshots import Guest, boot, check

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

BESIDE = "(while :; do date +%s%N >> /data/log; sync; usleep 20000; done) > /dev/null 2>&1 &"


@pytest.fixture(scope="module")
def machine(site: Site, connection: libvirt.virConnect) -> Iterator[Guest]:
    _, guest = boot(site, connection)
    yield guest
    site.run("down", "-y", guest.name)
    shutil.rmtree(site.home / "backups" / guest.name, ignore_errors=True)


@pytest.fixture
def guest(site: Site, machine: Guest) -> Iterator[Guest]:
    """The machine, running, and without backups."""
    site.run("start", machine.name)
    yield machine
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(site.home / "backups" / machine.name)


def create(guest: Guest, *words: str) -> dict[str, Any]:
    """Back up, and return what the list says of it."""
    guest.site.run("backup", "create", guest.name, *words)
    return backups(guest, *words)[-1]


def backups(guest: Guest, *words: str) -> list[dict[str, Any]]:
    """Return the backups in the order of their names."""
    to = words[words.index("--to") :][:2] if "--to" in words else ()
    done = guest.site.run("backup", "list", guest.name, "--json", *to, status=None)
    found = done.json[0]["backups"] if done.status == 0 else []
    assert not [each["problem"] for each in found if each["problem"]]
    return sorted(found, key=lambda each: each["name"])


def shown(path: pathlib.Path | str, directory: pathlib.Path) -> str:
    """Return the sha256 of what a guest sees of a disk."""
    raw = directory / "shown.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", path, raw], check=True)
    with raw.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    raw.unlink()
    return found


def inside(guest: Guest) -> str:
    """Return the sha256 of the disk as the guest reads it; nothing of it is mounted then."""
    return guest.run("umount /data; sha256sum /dev/vda").split()[0]


def mount(guest: Guest) -> None:
    guest.run("mount /dev/vda /data")


def restored(guest: Guest, backup: str, *words: str) -> pathlib.Path:
    """Make a machine of a backup and return its disk."""
    name = guest.site.name("r")
    guest.site.run("backup", "restore", guest.name, backup, name, *words)
    return guest.site.home / "machines" / name / "data.qcow2"


def begun(guest: Guest) -> list[str]:
    """Return what is left of backups in libvirt and QEMU: jobs and checkpoints."""
    domain = guest.domain
    left = [each.getName() for each in domain.listAllCheckpoints()]
    if domain.isActive() and domain.jobStats().get("operation"):
        left.append("a job")
    return left


def test_what_comes_back_is_what_was_there(
    site: Site, guest: Guest, tmp_path: pathlib.Path
) -> None:
    first = inside(guest)
    full = create(guest)
    assert (full["kind"], full["running"], full["quiesced"]) == ("full", True, True)
    mount(guest)
    guest.write("one")
    second = inside(guest)
    changed = create(guest, "--comment", "after one")
    assert (changed["kind"], changed["needs"]) == ("incremental", [full["name"]])
    mount(guest)
    # Beside a guest that writes; its agent holds the file system for the moment of the backup.
    guest.run(BESIDE)
    beside = create(guest)
    guest.run("pkill -f usleep; sync")
    assert beside["kind"] == "incremental"
    site.run("backup", "verify", guest.name)
    for backup, wanted in ((full, first), (changed, second)):
        assert shown(restored(guest, backup["name"]), tmp_path) == wanted
    disk = restored(guest, "latest")
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, tmp_path / "raw"], check=True)
    subprocess.run(["e2fsck", "-fn", tmp_path / "raw"], check=True, capture_output=True)
    name = disk.parent.name
    site.run("start", name)
    new = Guest(site, guest.connection, name)
    assert new.read() == ("one", "")
    assert new.run("wc -l < /data/log").strip() not in ("", "0")
    assert new.domain.UUIDString() != guest.domain.UUIDString()
    assert site.status(name)["drift"] == []
    site.run("down", "-y", name)
    # The last one stands alone in the end, and shows the same.
    wanted = shown(disk_of(site, beside), tmp_path)
    site.run("backup", "prune", "-y", "--keep", "1", guest.name)
    (left,) = backups(guest)
    assert (left["name"], left["kind"], left["needs"]) == (beside["name"], "full", [])
    site.run("backup", "verify", guest.name)
    assert shown(disk_of(site, left), tmp_path) == wanted
    for path in pathlib.Path(left["directory"]).iterdir():
        assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o600, os.geteuid())


def disk_of(site: Site, backup: dict[str, Any]) -> pathlib.Path:
    return pathlib.Path(backup["directory"]) / backup["disks"][0]["file"]


def test_refused_and_damaged(site: Site, guest: Guest, tmp_path: pathlib.Path) -> None:
    site.run("backup", "create", "no-such-machine", status=3)
    site.run("backup", "list", guest.name, status=3)
    site.run("backup", "create", guest.name, "--to", str(tmp_path / "missing"), status=3)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    refused = site.run("backup", "create", guest.name, "--to", str(closed), status=5)
    assert "chmod o+x" in refused.err
    elsewhere = pathlib.Path(site.home / "elsewhere")
    elsewhere.mkdir(mode=0o711)
    one = create(guest, "--to", str(elsewhere))
    two = create(guest, "--to", str(elsewhere))
    assert two["parent"] == one["name"]
    # Each directory has its own chain.
    assert create(guest)["kind"] == "full"
    assert create(guest, "--to", str(elsewhere))["kind"] == "incremental"
    site.run("backup", "restore", guest.name, "latest", guest.name, status=4)
    site.run("backup", "restore", guest.name, "20000101-000000", site.name("r"), status=3)
    # Moved as a whole, it can still be used; damaged, it cannot.
    moved = elsewhere.rename(site.home / "moved")
    site.run("backup", "verify", guest.name, "--to", str(moved))
    path = moved / guest.name / one["name"] / one["disks"][0]["file"]
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size - 1)
        stream.write(b"\xff")
    refused = site.run("backup", "verify", guest.name, "--to", str(moved), status=7)
    assert "sha256" in refused.err
    name = site.name("r")
    words = ("backup", "restore", guest.name, two["name"], name, "--to", str(moved))
    site.run(*words, status=7)
    assert not (site.home / "machines" / name).exists()
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 1)
    listed = site.run("backup", "list", guest.name, "--json", "--to", str(moved)).json[0]
    assert all(each["problem"] for each in listed["backups"])
    # One that refers to another file is not opened.
    manifest = path.with_name("backup.json")
    stranger = tmp_path / "stranger.raw"
    stranger.write_bytes(b"\0" * 65536)
    path.unlink()
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", stranger, path, "64M"],
        check=True,
    )
    data = json.loads(manifest.read_text())
    data["disks"][0]["digest"] = hashlib.sha256(path.read_bytes()).hexdigest()
    data["disks"][0]["bytes"] = path.stat().st_size
    manifest.write_text(json.dumps(data))
    refused = site.run("backup", "verify", guest.name, "--to", str(moved), status=7)
    assert "refers to" in refused.err
    shutil.rmtree(moved)


def slow(guest: Guest, number: signal.Signals) -> int:
    """Begin a backup that takes long, send it a signal, and return how it ended."""
    with subprocess.Popen(
        [sys.executable, "-c", backing.SLOWLY, "backup", "create", "--full", guest.name],
        env=guest.site.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n", process.communicate()[1]
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
        return process.returncode


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, marks=pytest.mark.long),
    ],
)
def test_given_up(site: Site, guest: Guest, number: signal.Signals) -> None:
    guest.run("dd if=/dev/urandom of=/data/much bs=1M count=16; sync")
    first = create(guest)
    before = begun(guest)
    status = slow(guest, number)
    if number is signal.SIGKILL:
        # Whoever works on the machine next puts it right.
        site.run("stop", guest.name)
        site.run("start", guest.name)
    else:
        assert status == 130
    assert begun(guest) == before
    assert site.status(guest.name)["interrupted"] == ""
    assert [each["name"] for each in backups(guest)] == [first["name"]]
    again = create(guest)
    assert (again["kind"], again["parent"]) == ("incremental", first["name"])
    guest.run("rm /data/much; sync")
    assert rubbish(site) == []


def test_the_backup_of_somebody_else_goes_on(site: Site, guest: Guest) -> None:
    first = create(guest)
    with backing.of_somebody_else(site, guest):
        refused = site.run("backup", "create", guest.name, status=4)
        assert "another job" in refused.err
        assert site.status(guest.name)["interrupted"] == ""
    words = [sys.executable, "-c", backing.DYING, "backup", "create", guest.name]
    died = subprocess.run(words, env=site.env, timeout=PATIENCE, check=False)
    assert died.returncode == -signal.SIGKILL
    with backing.of_somebody_else(site, guest):
        # Whoever works on the machine next puts right what was ours.
        site.run("backup", "create", guest.name, status=4)
        assert site.status(guest.name)["interrupted"] == ""
    assert rubbish(site) == []
    assert create(guest)["parent"] == first["name"]


def test_a_snapshot_voids_what_was_recorded(site: Site, guest: Guest) -> None:
    """QEMU puts no snapshot back into a disk with a bitmap: that goes first, and it is said."""
    guest.write("one")
    create(guest)
    guest.snapshot("create", guest.name, "live")
    guest.write("two")
    said = guest.snapshot("restore", "-y", "--no-safety", guest.name, "live")
    assert "void" in said.err
    assert guest.read() == ("one", "one")
    said = site.run("backup", "create", guest.name)
    assert "a full backup is made" in said.err
    assert create(guest)["kind"] == "incremental"
    # Of others, no bitmap is removed; nothing is touched.
    theirs = guest.domain.checkpointCreateXML(
        "<domaincheckpoint><name>theirs</name></domaincheckpoint>", 0
    )
    refused = guest.snapshot("restore", "-y", guest.name, "live", status=4)
    assert "checkpoint-delete" in refused.err
    assert guest.names() == ["live"]
    theirs.delete()
    guest.snapshot("delete", "-y", guest.name, "live")


@pytest.mark.long
def test_stopped_and_running_in_turn(site: Site, guest: Guest, tmp_path: pathlib.Path) -> None:
    first = create(guest)
    guest.write("one")
    site.run("stop", guest.name)
    second = create(guest)
    assert (second["kind"], second["parent"]) == ("incremental", first["name"])
    assert second["running"] is False
    assert shown(disk_of(site, second), tmp_path) == shown(guest.disk, tmp_path)
    guest.snapshot("create", guest.name, "then")
    said = guest.snapshot("restore", "-y", "--no-safety", guest.name, "then")
    assert "void" in said.err
    site.run("start", guest.name)
    assert create(guest)["kind"] == "full"
    # What was written since is not known either after QEMU was killed.
    pid = int(pathlib.Path(f"/var/run/libvirt/qemu/{guest.name}.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while guest.domain.isActive():
        assert time.monotonic() < end
        time.sleep(0.05)
    site.run("start", guest.name)
    # Nor does what was not closed keep a disk from growing.
    spec = site.specs / f"{guest.name}.yaml"
    spec.write_text(spec.read_text().replace("64MiB", "80MiB"))
    site.run("up", str(spec))
    full = create(guest)
    assert (full["kind"], full["disks"][0]["size"]) == ("full", 80 << 20)
    assert create(guest)["kind"] == "incremental"
    # Deleting what others need harms none of them.
    wanted = {each["name"]: shown(disk_of(site, each), tmp_path) for each in backups(guest)}
    site.run("backup", "delete", "-y", guest.name, first["name"])
    site.run("backup", "verify", guest.name)
    for each in backups(guest):
        assert shown(disk_of(site, each), tmp_path) == wanted[each["name"]]
    guest.snapshot("delete", "-y", guest.name, "then")
    site.run("stop", guest.name)
    check(guest.disk)


SOME = [pytest.param(False, id="some"), pytest.param(True, id="all", marks=pytest.mark.soak)]


@pytest.mark.long
@pytest.mark.parametrize("every", SOME)
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_killed_while_made(
    site: Site, guest: Guest, tmp_path: pathlib.Path, every: bool, running: bool
) -> None:
    first = create(guest)
    guest.write("one")
    if not running:
        site.run("stop", guest.name)
    deaths = 0
    for when, moment in points(every):
        there = len(backups(guest))
        if not killed(site, when, moment, "backup", "create", guest.name):
            break
        deaths += 1
        made = create(guest)
        assert made["kind"] == "incremental", (when, moment)
        status = site.status(guest.name)
        assert (status["state"], status["interrupted"]) == (
            "running" if running else "stopped",
            "",
        )
        assert len(backups(guest)) in (there + 1, there + 2)
        if running:
            assert len([name for name in begun(guest) if name != "a job"]) == 1
            guest.write(f"at-{when}")
        assert not list((site.home / "backups").rglob(".tmp-*"))
    assert deaths > 2
    site.run("backup", "verify", guest.name)
    site.run("stop", guest.name)
    last = create(guest)
    assert shown(disk_of(site, last), tmp_path) == shown(guest.disk, tmp_path)
    assert first["name"] in last["needs"] or len(last["needs"]) > 0


@pytest.mark.long
@pytest.mark.parametrize("every", SOME)
def test_killed_while_removed(
    site: Site, guest: Guest, tmp_path: pathlib.Path, every: bool
) -> None:
    for when, moment in points(every, 6):
        create(guest, "--full")
        guest.write(f"one-{when}")
        create(guest)
        guest.write(f"two-{when}")
        last = create(guest)
        oldest = backups(guest)[0]["name"]
        wanted = shown(disk_of(site, last), tmp_path)
        lived = not killed(site, when, moment, "backup", "delete", "-y", guest.name, oldest)
        site.run("backup", "verify", guest.name)
        site.run("backup", "delete", "-y", guest.name, oldest, status=None)
        site.run("backup", "verify", guest.name)
        found = next(each for each in backups(guest) if each["name"] == last["name"])
        assert shown(disk_of(site, found), tmp_path) == wanted, (when, moment)
        shutil.rmtree(site.home / "backups" / guest.name)
        if lived:
            break
    assert when > 3


@pytest.mark.long
def test_no_room(site: Site, guest: Guest, tmp_path: pathlib.Path) -> None:
    before = begun(guest)
    guest.run("dd if=/dev/urandom of=/data/much bs=1M count=24; sync")
    site.run("stop", guest.name)
    small = pathlib.Path("/var/tmp") / f"vmctl-small-{tmp_path.name}"
    small.mkdir(mode=0o711)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=711", "tmpfs", small], check=True)
    blind = (
        "import sys, vmctl.lifecycle.backup as b; b._require_room = lambda *_: None; "
        "sys.argv = ['vmctl', *sys.argv[1:]]; from vmctl.cli import main; main()"
    )
    try:
        for running in (False, True):
            if running:
                # QEMU sees what was mounted before it started.
                site.run("start", guest.name)
            words = ("backup", "create", guest.name, "--to", str(small))
            refused = site.run(*words, status=5)
            assert "left" in refused.err
            done = subprocess.run(
                [sys.executable, "-c", blind, *words],
                env=site.env,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert done.returncode == 5, done.stderr
            assert "room" in done.stderr
            assert list((small / guest.name).iterdir()) == []
            assert site.status(guest.name)["interrupted"] == ""
            assert begun(guest) == before
    finally:
        subprocess.run(["umount", "-l", small], check=True)
        small.rmdir()
    guest.run("rm /data/much; sync")
    assert create(guest)["kind"] == "full"
