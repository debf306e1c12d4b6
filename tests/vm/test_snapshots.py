"""Snapshots of real guests, looked at from inside the guest and from outside."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import pathlib
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from tests.vm.conftest import PATIENCE, Site

pytestmark = pytest.mark.vm

VIRTIO = "accel: tcg\ndevices: virtio\n"
DISK = "disks: [{name: data, size: 64MiB}]\n"
COUNTER = (
    "(i=0; while :; do i=$((i+1)); echo $i > /tmp/count; usleep 50000; done) > /dev/null 2>&1 &"
)


class Guest:
    """The inside of a guest, through its agent."""

    def __init__(self, site: Site, connection: libvirt.virConnect, name: str) -> None:
        self.site = site
        self.connection = connection
        self.name = name

    @property
    def domain(self) -> libvirt.virDomain:
        return self.connection.lookupByName(self.name)

    def _ask(self, command: str, **arguments: Any) -> Any:
        text = json.dumps({"execute": command, "arguments": arguments})
        return json.loads(libvirt_qemu.qemuAgentCommand(self.domain, text, 30, 0))["return"]

    def run(self, script: str) -> str:
        """Run a script inside and return what it printed."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                number = self._ask(
                    "guest-exec", path="/bin/sh", arg=["-c", script], **{"capture-output": True}
                )["pid"]
                break
            except libvirt.libvirtError:
                assert time.monotonic() < end, "the agent does not answer"
                time.sleep(0.1)
        while True:
            answer = self._ask("guest-exec-status", pid=number)
            if answer["exited"]:
                return base64.b64decode(answer.get("out-data", "")).decode()
            time.sleep(0.05)

    def write(self, text: str) -> None:
        self.run(f"echo {text} > /data/file; echo {text} > /tmp/file; sync")

    def read(self) -> tuple[str, str]:
        """Return what the file on the disk and the one in memory hold."""
        words = self.run("cat /data/file; echo; cat /tmp/file 2> /dev/null").split()
        return words[0], words[1] if len(words) > 1 else ""

    def uptime(self) -> float:
        return float(self.run("cat /proc/uptime").split()[0])

    def snapshot(self, *words: str, status: int = 0) -> Any:
        verb, *rest = words
        return self.site.run("snapshot", verb, *rest, status=status)

    def tree(self) -> dict[str, Any]:
        listing = self.site.run("snapshot", "list", self.name, "--json").json[0]
        assert not [item for item in listing["snapshots"] if item["problem"]]
        assert not listing["foreign"]
        return listing

    def names(self) -> list[str]:
        return [item["name"] for item in self.tree()["snapshots"]]

    @property
    def disk(self) -> pathlib.Path:
        return self.site.home / "machines" / self.name / "data.qcow2"

    def require_sound(self, spec: str = "") -> None:
        """Have vmctl see no drift, and nothing begun that is not finished."""
        status = self.site.status(self.name)
        assert (status["drift"], status["interrupted"]) == ([], "")
        if spec:
            plan = self.site.run("up", "--dry-run", "--json", spec).json["machines"][0]
            assert [each for each in plan["actions"] if each in ("define", "start")] == []


def boot(
    site: Site, connection: libvirt.virConnect, text: str = VIRTIO + DISK
) -> tuple[str, Guest]:
    path, name = site.spec(text)
    site.run("up", path)
    return path, Guest(site, connection, name)


@pytest.fixture(scope="module")
def machine(site: Site, connection: libvirt.virConnect) -> Iterator[tuple[str, Guest]]:
    """One machine for many tests; each leaves it running, without snapshots."""
    path, guest = boot(site, connection)
    yield path, guest
    site.run("down", "-y", path)


@pytest.fixture
def guest(site: Site, machine: tuple[str, Guest]) -> Iterator[Guest]:
    path, guest = machine
    site.run("up", path)
    yield guest
    for name in guest.names():
        guest.snapshot("delete", "-y", guest.name, name)


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check(path: pathlib.Path) -> None:
    """Have qemu-img find nothing wrong in an image of a stopped machine."""
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], check=True)


def fsck(path: pathlib.Path, scratch: pathlib.Path, snapshot: str = "") -> str:
    """Have e2fsck find nothing wrong in a disk, or in a snapshot of it; returns what it said."""
    raw = scratch / "disk.raw"
    words = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
    subprocess.run(
        ["qemu-img", "convert", "-f", "qcow2", *words, "-O", "raw", path, raw], check=True
    )
    done = subprocess.run(["/sbin/e2fsck", "-fn", raw], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_memory_comes_back_into_the_same_qemu(
    site: Site, machine: tuple[str, Guest], guest: Guest, tmp_path: pathlib.Path
) -> None:
    guest.run(COUNTER)
    guest.write("one")
    count, uptime, run = int(guest.run("cat /tmp/count")), guest.uptime(), guest.domain.ID()
    guest.snapshot("create", guest.name, "first", "--comment", "words & <marks>")
    guest.write("two")
    time.sleep(3)
    guest.snapshot("restore", "-y", guest.name, "first")
    assert guest.read() == ("one", "one")
    assert guest.domain.ID() == run
    after = int(guest.run("cat /tmp/count"))
    assert count <= after
    time.sleep(0.5)
    assert int(guest.run("cat /tmp/count")) > after
    assert guest.uptime() > uptime
    assert abs(int(guest.run("date +%s")) - time.time()) < 10
    tree = guest.tree()
    assert tree["snapshots"][0]["kind"] == "memory"
    assert tree["snapshots"][0]["comment"] == "words & <marks>"
    assert tree["snapshots"][0]["current"]
    safety = next(item for item in tree["snapshots"] if item["origin"] == "restore")
    assert (safety["name"], safety["parent"]) == ("before-restore-1", "first")
    guest.require_sound(machine[0])
    # Back to what the restore threw away.
    guest.snapshot("restore", "-y", "--no-safety", guest.name, "before-restore-1")
    assert guest.read() == ("two", "two")
    guest.run("pkill -f usleep; sync")
    site.run("stop", guest.name)
    check(guest.disk)
    fsck(guest.disk, tmp_path)


def test_disks_alone(site: Site, guest: Guest, tmp_path: pathlib.Path) -> None:
    guest.write("one")
    guest.snapshot("create", "--disks", guest.name, "disks")
    guest.write("two")
    kept = guest.tree()["snapshots"][0]
    assert (kept["kind"], kept["quiesced"], kept["running"]) == ("disks", True, True)
    guest.snapshot("restore", "-y", "--no-safety", guest.name, "disks")
    assert guest.read() == ("one", "")
    guest.require_sound()
    site.run("stop", guest.name)
    check(guest.disk)
    assert "recovering journal" not in fsck(guest.disk, tmp_path, "disks")


def test_stopped(site: Site, guest: Guest) -> None:
    guest.write("one")
    site.run("stop", guest.name)
    guest.snapshot("create", guest.name, "offline")
    site.run("start", guest.name)
    guest.write("two")
    guest.snapshot("create", guest.name, "later")
    guest.snapshot("restore", "-y", "--no-safety", guest.name, "offline")
    assert site.status(guest.name)["state"] == "stopped"
    site.run("start", guest.name)
    assert guest.read()[0] == "one"
    # From stopped to running, with its memory, in a new QEMU.
    site.run("stop", guest.name)
    guest.snapshot("restore", "-y", "--no-safety", guest.name, "later")
    assert guest.read() == ("two", "two")
    status = site.status(guest.name)
    assert (status["state"], status["ready"]) == ("running", True)
    assert len(status["forwards"]) == 1
    guest.require_sound()


def test_paused_stays_paused(site: Site, guest: Guest) -> None:
    site.run("pause", guest.name)
    guest.snapshot("create", guest.name, "still")
    site.run("resume", guest.name)
    guest.write("two")
    guest.snapshot("restore", "-y", "--no-safety", guest.name, "still")
    assert site.status(guest.name)["state"] == "paused"
    site.run("resume", guest.name)
    assert guest.uptime() > 0


def test_a_parent_deleted_harms_no_child(site: Site, guest: Guest) -> None:
    for text in ("one", "two", "three"):
        guest.write(text)
        guest.snapshot("create", guest.name, text)
    guest.snapshot("delete", "-y", guest.name, "one")
    guest.snapshot("delete", "-y", guest.name, "two")
    assert guest.tree()["snapshots"][0]["parent"] == ""
    guest.write("four")
    guest.snapshot("restore", "-y", "--no-safety", guest.name, "three")
    assert guest.read() == ("three", "three")


def test_what_is_refused_changes_no_byte(site: Site, guest: Guest) -> None:
    guest.snapshot("create", guest.name, "there")
    site.run("stop", guest.name)
    before = digest(guest.disk)
    guest.snapshot("create", guest.name, "there", status=4)
    guest.snapshot("create", "--memory", guest.name, "other", status=2)
    guest.snapshot("create", guest.name, "Not A Name", status=2)
    guest.snapshot("create", guest.name, "-rf", status=2)
    guest.snapshot("create", "no-such-machine", "other", status=3)
    guest.snapshot("restore", "-y", guest.name, "other", status=3)
    guest.snapshot("restore", guest.name, "there", status=2)
    guest.snapshot("delete", "-y", guest.name, "other", status=3)
    assert digest(guest.disk) == before
    check(guest.disk)


@pytest.mark.long
def test_an_older_definition_comes_back(site: Site, connection: libvirt.virConnect) -> None:
    path, guest = boot(site, connection)
    guest.write("one")
    guest.snapshot("create", guest.name, "small")
    text = pathlib.Path(path).read_text()
    pathlib.Path(path).write_text(text.replace("128MiB", "192MiB"))
    site.run("up", path)
    site.run("restart", "--force", guest.name)
    assert site.status(guest.name)["machine"]["memory"] == 192 << 20
    guest.snapshot("restore", "-y", guest.name, "small")
    assert guest.read() == ("one", "one")
    assert site.status(guest.name)["machine"]["memory"] == 128 << 20
    guest.require_sound()
    # What was there before comes back with its own definition as well.
    guest.snapshot("restore", "-y", "--no-safety", guest.name, "before-restore-1")
    assert site.status(guest.name)["machine"]["memory"] == 192 << 20
    guest.require_sound(path)
    site.run("down", "-y", path)


def test_no_disk_at_all(site: Site, connection: libvirt.virConnect) -> None:
    path, guest = boot(site, connection, VIRTIO)
    guest.run("echo one > /tmp/file")
    guest.snapshot("create", guest.name, "only-memory")
    guest.run("echo two > /tmp/file")
    guest.snapshot("restore", "-y", guest.name, "only-memory")
    assert guest.run("cat /tmp/file") == "one\n"
    site.run("stop", "--force", guest.name)
    guest.snapshot("create", guest.name, "nothing", status=2)
    guest.snapshot("restore", "-y", guest.name, "only-memory")
    assert guest.run("cat /tmp/file") == "one\n"
    guest.snapshot("create", "--disks", guest.name, "nothing", status=2)
    site.run("down", "-y", path)
    assert not (site.home / "machines" / guest.name).exists()


def test_full_mode(site: Site, connection: libvirt.virConnect) -> None:
    path, guest = boot(site, connection, "mode: full\n" + DISK)
    site.console(guest.name, "echo one > /data/file; echo one > /tmp/file; sync")
    guest.snapshot("create", guest.name, "one")
    site.console(guest.name, "echo two > /data/file; echo two > /tmp/file; sync")
    guest.snapshot("restore", "-y", guest.name, "one")
    assert site.console(guest.name, "cat /data/file /tmp/file").split() == ["one", "one"]
    guest.require_sound(path)
    site.run("down", "-y", path)


@pytest.mark.long
def test_uefi_and_tpm(site: Site, connection: libvirt.virConnect) -> None:
    text = VIRTIO + DISK + "firmware: uefi\ntpm: true\n"
    path, name = site.spec(text.replace("128MiB", "256MiB"))
    pathlib.Path(path).write_text(pathlib.Path(path).read_text().replace("128MiB", "256MiB"))
    site.run("up", path)
    guest = Guest(site, connection, name)
    guest.write("one")
    guest.snapshot("create", name, "one")
    guest.write("two")
    guest.snapshot("restore", "-y", name, "one")
    assert guest.read() == ("one", "one")
    site.run("stop", "--force", name)
    nvram = site.home / "machines" / name / "nvram.fd"
    guest.snapshot("create", name, "offline")
    before = digest(nvram)
    with nvram.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"x")
    guest.snapshot("restore", "-y", "--no-safety", name, "offline")
    assert digest(nvram) == before
    guest.snapshot("restore", "-y", "--no-safety", name, "one")
    assert guest.read() == ("one", "one")
    site.run("down", "-y", path)


def test_a_project_at_one_moment(site: Site, connection: libvirt.virConnect) -> None:
    names = [site.name("a"), site.name("b")]
    path = site.specs / f"{names[0]}.yaml"
    path.write_text(
        f"project: {names[0]}\ndefaults: {{image: tiny, memory: 128MiB, accel: tcg, "
        "devices: virtio, disks: [{name: data, size: 16MiB}]}\n"
        f"vms: {{{names[0]}: {{}}, {names[1]}: {{}}}}\n"
    )
    site.run("up", str(path))
    guests = [Guest(site, connection, name) for name in names]
    for guest in guests:
        guest.write("one")
    site.run("snapshot", "create", str(path), "both")
    created = [guest.tree()["snapshots"][0] for guest in guests]
    assert [item["name"] for item in created] == ["both", "both"]
    assert all(site.status(name)["state"] == "running" for name in names)
    # One that cannot be taken: none is.
    guests[1].snapshot("create", names[1], "alone")
    site.run("snapshot", "create", str(path), "alone", status=4)
    assert guests[0].names() == ["both"]
    for guest in guests:
        guest.write("two")
    # One more of what vmctl makes by itself: what is kept of both has one name all the same.
    guests[1].snapshot("restore", "-y", names[1], "alone")
    site.run("snapshot", "restore", "-y", str(path), "both")
    assert [guest.read() for guest in guests] == [("one", "one")] * 2
    assert [guest.names()[-1] for guest in guests] == ["before-restore-2"] * 2
    site.run("snapshot", "create", "--disks", str(path), "disks")
    assert all(guest.tree()["snapshots"][-1]["quiesced"] for guest in guests)
    for guest in guests:
        guest.require_sound()
    site.run("down", "-y", str(path))
    for name in names:
        assert not (site.home / "machines" / name).exists()


@pytest.mark.long
def test_a_kept_disk_keeps_no_snapshot(site: Site, connection: libvirt.virConnect) -> None:
    path, guest = boot(
        site, connection, VIRTIO + "disks: [{name: data, size: 16MiB, keep: true}]\n"
    )
    guest.snapshot("create", guest.name, "one")
    site.run("down", "-y", path)
    said = subprocess.run(
        ["qemu-img", "snapshot", "-l", guest.disk], capture_output=True, text=True, check=True
    )
    assert said.stdout == ""
    site.run("up", path)
    guest.snapshot("create", guest.name, "one")
    site.run("down", "-y", "--delete-kept", path)


def test_snapshots_of_other_hands_are_left_alone(guest: Guest) -> None:
    theirs = "<domainsnapshot><name>theirs</name></domainsnapshot>"
    guest.domain.snapshotCreateXML(theirs, 0)
    try:
        listing = guest.site.run("snapshot", "list", guest.name, "--json").json[0]
        assert listing["foreign"] == ["theirs"]
        guest.snapshot("create", guest.name, "theirs", status=4)
        guest.snapshot("delete", "-y", guest.name, "theirs", status=3)
    finally:
        guest.domain.snapshotLookupByName("theirs").delete(0)
    with contextlib.suppress(libvirt.libvirtError):
        assert guest.domain.snapshotListNames(0) == []
