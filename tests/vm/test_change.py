"""A spec that changes while its machine runs: each change is looked for inside the guest."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import socket
import time
from collections.abc import Callable

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Result, Site
from tests.vm.killing import killed, points

pytestmark = pytest.mark.vm

MIB = 1 << 20
VIRTIO = "accel: tcg\ndevices: virtio\n"
SMALL = (
    f"{VIRTIO}memory_max: 256MiB\ncpus: 1\ncpus_max: 2\n"
    "disks: [{name: data, size: 32MiB}]\ncdroms: [./one.iso]\n"
)
GROWN = SMALL.replace("32MiB", "64MiB").replace("cpus: 1", "cpus: 2")
LARGE = (
    f"{VIRTIO}memory_max: 256MiB\ncpus: 2\ncpus_max: 2\ndescription: grown\n"
    "disks: [{name: more, size: 16MiB}, {name: data, size: 64MiB}]\ncdroms: [./two.iso]\n"
    "networks: [{kind: user}, {kind: user}]\nforwards: [{host: 0, guest: 80}]\n"
    "resources: {disk_read_iops: 500, cpu_quota: 180%}\n"
)


@dataclasses.dataclass
class Guest:
    """One machine whose spec is written anew again and again; its disk has `size` MiB."""

    site: Site
    name: str
    path: str = ""
    size: int = 64

    def spec(self, text: str, memory: str = "128MiB") -> str:
        """Write the spec; returns its path."""
        self.path, _ = self.site.spec(text, self.name)
        path = pathlib.Path(self.path)
        written = path.read_text().replace("memory: 128MiB", f"memory: {memory}", 1)
        path.write_text(written.replace("64MiB", f"{self.size}MiB"))
        return self.path

    def inside(self, command: str) -> str:
        """Run a shell command in the guest."""
        return self.site.run("exec", self.name, "--", "sh", "-c", command).out.strip()

    def number(self, command: str) -> int:
        return int(self.inside(command))

    def diff(self) -> dict[str, str]:
        """Return when each change takes hold, by its place."""
        (machine,) = self.site.run("diff", self.path, "--json").json["machines"]
        return {change["path"]: change["effect"] for change in machine["changes"]}

    def drift(self) -> list[str]:
        (machine,) = self.site.run("diff", self.path, "--json").json["machines"]
        return list(machine["drift"])


FREE = "awk '/MemAvailable/ {print $2}' /proc/meminfo"
DISKS = "cat /sys/block/vd?/size | sort -n | tr '\\n' ' '"
CARDS = "ls -d /sys/class/net/*/device | wc -l"


def free_port() -> int:
    """Return a port of this host that nobody has."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@pytest.fixture(scope="module")
def guest(site: Site) -> Guest:
    for name in ("one", "two"):
        (site.specs / f"{name}.iso").write_bytes(f"medium {name}\n".encode() + bytes(1 << 16))
        (site.specs / f"{name}.iso").chmod(0o644)
    guest = Guest(site, site.name())
    site.run("up", guest.spec(SMALL, "160MiB"))
    return guest


def settled(guest: Guest, connection: libvirt.virConnect, *late: str) -> None:
    """Assert that what runs is what the spec says, as vmctl and libvirt see it.

    `late` are the places that wait for the next start.
    """
    assert set(guest.diff()) == set(late)
    assert guest.drift() == []
    status = guest.site.status(guest.name)
    assert (len(status["pending"]), status["drift"]) == (len(late), [])
    assert status["interrupted"] == ""
    assert not connection.lookupByName(guest.name).isUpdated() or late


def words(result: Result) -> str:
    """Return what a command said, as one line."""
    return " ".join(result.err.split())


def wait_for(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_all_of_it_live(guest: Guest, guest_uri: libvirt.virConnect) -> None:
    site, domain = guest.site, guest_uri.lookupByName(guest.name)
    run, free = domain.ID(), guest.number(FREE)
    text = LARGE.replace("host: 0", f"host: {free_port()}")
    path = guest.spec(text, "224MiB")
    effects = guest.diff()
    assert set(effects.values()) == {"live"}
    assert len(effects) == 10
    assert site.run("diff", "--exit-code", path, status=1).out
    site.run("up", path)
    assert domain.ID() == run
    assert guest.number("nproc") == 2
    assert 48 * 1024 < guest.number(FREE) - free < 80 * 1024
    assert guest.inside(DISKS) == f"{16 * MIB // 512} {64 * MIB // 512}"
    assert guest.number(CARDS) == 2
    assert guest.inside("head -n 1 /dev/sr0") == "medium two"
    assert any("-> 80/tcp" in port for port in site.status(guest.name)["forwards"])
    tune = domain.blockIoTune(domain.XMLDesc().split("<target dev='")[1][:3])
    assert tune["read_iops_sec"] == 500
    assert domain.schedulerParameters()["global_quota"] == 180_000
    assert domain.metadata(libvirt.VIR_DOMAIN_METADATA_DESCRIPTION, None) == "grown"
    # 'more' is the first disk from the next start on.
    settled(guest, guest_uri, "disks order")
    shown = site.run("diff", path)
    assert shown.out.splitlines()[1].split()[-3:] == ["at", "next", "start"]


def test_and_back_again(guest: Guest, guest_uri: libvirt.virConnect) -> None:
    """Devices go by name: 'more' was first in the list, and 'data' is not touched."""
    site, domain = guest.site, guest_uri.lookupByName(guest.name)
    run = domain.ID()
    small = SMALL.replace("32MiB", "64MiB").replace("cdroms: [./one.iso]\n", "")
    path = guest.spec(small, "160MiB")
    effects = guest.diff()
    late = {path for path, effect in effects.items() if effect != "live"}
    # QEMU under TCG does not say that a processor is gone.
    assert late == {"cpus", "cdrom drives"}
    result = site.run("up", path)
    assert "cpus: 2 -> 1 (takes effect at the next start)" in words(result)
    assert guest.inside(DISKS) == f"{64 * MIB // 512}"
    assert guest.number(CARDS) == 1
    # No medium: the drive answers, and there is nothing in it.
    assert "No medium" in guest.inside("head -n 1 /dev/sr0 2>&1; true")
    assert (site.home / "machines" / guest.name / "more.qcow2").exists()
    assert domain.ID() == run
    assert set(guest.diff()) == late
    site.run("up", guest.spec(GROWN, "160MiB"))
    settled(guest, guest_uri)
    site.run("diff", "--exit-code", guest.path)
    assert guest.inside("head -n 1 /dev/sr0") == "medium one"


def test_a_disk_never_shrinks(guest: Guest) -> None:
    path = guest.spec(SMALL)
    assert guest.diff()["disks[data].size"] == "needs re-creation"
    refused = guest.site.run("up", path, status=2)
    assert "a disk never shrinks" in refused.err
    assert guest.inside(DISKS) == f"{64 * MIB // 512}"
    shown = guest.site.run("diff", path).out
    assert "refused" in shown
    assert "needs re-creation" in shown


def edited(connection: libvirt.virConnect, name: str, old: str, new: str) -> None:
    """Do what virsh edit does."""
    xml = connection.lookupByName(name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert old in xml
    connection.defineXML(xml.replace(old, new))


def test_hand_edits_stay_until_they_are_taken_over(
    guest: Guest, guest_uri: libvirt.virConnect
) -> None:
    site, domain = guest.site, guest_uri.lookupByName(guest.name)
    path = guest.spec(GROWN, "160MiB")
    site.run("up", path)
    settled(guest, guest_uri)
    edited(guest_uri, guest.name, "<on_crash>preserve", "<on_crash>destroy")
    edited(guest_uri, guest.name, ">163840<", ">131072<")
    domain.setMemoryFlags(140 * 1024, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    before = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    drift = "\n".join(guest.drift())
    assert "on_crash" in drift
    assert "memory" in drift
    result = site.run("up", path)
    assert "changed by other hands" in words(result)
    assert "--take-over" in words(result)
    assert domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) == before
    taken = site.run("up", "--take-over", path)
    assert "taken over from other hands" in words(taken)
    settled(guest, guest_uri)
    xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert "<on_crash>preserve" in xml
    assert ">163840<" in xml


def test_what_other_hands_changed_in_the_running_machine_stays(
    guest: Guest, guest_uri: libvirt.virConnect
) -> None:
    site, domain = guest.site, guest_uri.lookupByName(guest.name)
    data = site.home / "machines" / guest.name / "data.qcow2"
    live = libvirt.VIR_DOMAIN_AFFECT_LIVE
    domain.setMemoryFlags(200 * 1024, live)
    domain.attachDeviceFlags(
        "<interface type='user'><mac address='52:54:00:00:00:99'/><model type='virtio'/>"
        "</interface>",
        live,
    )
    wait_for(lambda: domain.info()[2] > 190 * 1024)
    drift = "\n".join(guest.drift())
    assert "while it runs, memory: 160MiB -> " in drift
    assert "52:54:00:00:00:99" in drift
    # Another change is made, and this one is left alone.
    text = GROWN + "description: new\n"
    path = guest.spec(text, "160MiB")
    result = site.run("up", path)
    assert "while it runs, memory" in words(result)
    assert domain.metadata(libvirt.VIR_DOMAIN_METADATA_DESCRIPTION, None) == "new"
    assert domain.info()[2] > 190 * 1024
    assert guest.number(CARDS) == 2
    site.run("up", "--take-over", path)
    assert abs(domain.info()[2] - 160 * 1024) <= 1024
    assert len(guest.drift()) == 1  # a device of others is theirs until the next start
    assert data.exists()
    domain.detachDeviceFlags(
        "<interface type='user'><mac address='52:54:00:00:00:99'/></interface>", live
    )
    wait_for(lambda: guest.drift() == [])


@pytest.mark.timeout(3000)
def test_a_kill_at_any_point_converges(
    guest: Guest, guest_uri: libvirt.virConnect, thorough: bool
) -> None:
    large = LARGE.replace("forwards: [{host: 0, guest: 80}]\n", "")
    guest.site.run("up", "--take-over", guest.spec(GROWN, "160MiB"))
    turns = itertools.cycle([(large, "224MiB", 2), (GROWN, "160MiB", 1)])
    deaths = 0
    for when, moment in points(thorough, some=7, most=2):
        text, memory, count = next(turns)
        guest.size += 1
        path = guest.spec(text, memory)
        lived = not killed(guest.site, when, moment, "up", path)
        if not lived:
            guest.site.run("up", path)
        assert set(guest.diff()) <= {"disks order"}, (when, moment)
        assert guest.number("ls -d /sys/block/vd? | wc -l") == count, (when, moment)
        assert guest.number(CARDS) == count, (when, moment)
        assert str(guest.size * MIB // 512) in guest.inside(DISKS).split(), (when, moment)
        if lived:
            break
        deaths += 1
    assert deaths > (10 if thorough else 3)


@pytest.mark.long
def test_a_guest_that_does_not_let_go(site: Site, guest_uri: libvirt.virConnect) -> None:
    """Nothing but firmware runs in it, and that listens to nobody."""
    guest = Guest(site, site.name("deaf"))
    text = f"{VIRTIO}disk: 16MiB\nready: {{when: running}}\nnetworks: [{{kind: user}}"

    def bare(rest: str) -> str:
        path = pathlib.Path(guest.spec(f"{text}{rest}"))
        path.write_text(path.read_text().replace("image: tiny\n", ""))
        return guest.path

    site.run("up", bare(", {kind: user}]\n"))
    bare("]\ndescription: new\n")
    failed = site.run("up", guest.path, status=6)
    assert "did not let go of network card" in words(failed)
    assert "(nics[" in words(failed)
    domain = guest_uri.lookupByName(guest.name)
    # The other change was made, and the definition is right.
    assert domain.metadata(libvirt.VIR_DOMAIN_METADATA_DESCRIPTION, None) == "new"
    assert domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).count("<interface") == 1
    (path,) = guest.diff()
    assert path.startswith("nics[")
    site.run("restart", "--force", guest.name)
    settled(guest, guest_uri)
    site.run("down", "-y", guest.name)


def test_emulated_devices(site: Site, guest_uri: libvirt.virConnect) -> None:
    """Without virtio there is no balloon, and AHCI takes no disk while it runs."""
    other = Guest(site, site.name("full"))
    full = "mode: full\ncpus: 1\ncpus_max: 2\ncdroms: [./one.iso]\n"
    site.run("up", other.spec(f"{full}disks: [{{name: data, size: 32MiB}}]\n"))
    text = full.replace("cpus: 1", "cpus: 2").replace("one", "two")
    text += "disks: [{name: data, size: 64MiB}, {name: more, size: 16MiB}]\n"
    path = other.spec(f"{text}networks: [{{kind: user}}, {{kind: user}}]\n", "160MiB")
    effects = other.diff()
    late = {place for place, effect in effects.items() if effect == "at next start"}
    assert late == {"memory", "memory_max", "disks[data].size", "disks[more]"}
    assert len(effects) == 7
    site.run("up", path)
    assert other.number("nproc") == 2
    assert other.number(CARDS) == 2
    # The first look at a changed medium may fail: that is how an AHCI drive tells of it.
    assert other.inside("head -n 1 /dev/sr0 2> /dev/null || head -n 1 /dev/sr0") == "medium two"
    assert other.inside("cat /sys/block/sda/size") == f"{32 * MIB // 512}"
    # The image has grown already; what is left waits for the guest to start again.
    late -= {"disks[data].size"}
    assert set(other.diff()) == late
    # Two cards of QEMU's user network have the same address: the second goes before both come up.
    site.run("up", other.spec(text, "160MiB"))
    assert other.number(CARDS) == 1
    assert set(other.diff()) == late
    site.run("restart", "--force", other.name)
    assert other.inside("cat /sys/block/sd?/size | tr '\\n' ' '").split() == ["131072", "32768"]
    settled(other, guest_uri)
    site.run("down", "-y", other.name)


def test_a_stopped_machine_takes_all_of_it_and_starts(
    site: Site, guest: Guest, guest_uri: libvirt.virConnect
) -> None:
    """A disk that is kept outlives its place in the spec, and grows when it comes back."""
    keep = "disks: [{name: data, size: 64MiB}, {name: kept, size: 16MiB, keep: true}]\n"
    guest.spec(f"{VIRTIO}{keep}")
    site.run("stop", "--force", guest.name)
    assert set(guest.diff().values()) == {"at next start"}
    site.run("up", guest.path)
    settled(guest, guest_uri)
    guest.inside("echo precious > /dev/vdb; sync")
    site.run("up", guest.spec(f"{VIRTIO}disks: [{{name: data, size: 64MiB}}]\n"))
    site.run("stop", "--force", guest.name)
    site.run("down", "-y", guest.name)
    place = site.home / "machines" / guest.name
    assert [entry.name for entry in place.iterdir()] == ["kept.qcow2"]
    text = "disks: [{name: kept, size: 32MiB, keep: true}]\n"
    site.run("up", guest.spec(f"{VIRTIO}{text}"))
    assert guest.inside("head -c 8 /dev/vda") == "precious"
    assert guest.inside("cat /sys/block/vda/size") == f"{32 * MIB // 512}"
