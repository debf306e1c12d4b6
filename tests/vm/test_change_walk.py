"""Long walks of spec edits, edits by other hands, deaths and `up`s, against a simple model.

After every `up` each thing is as the spec says, in the definition and in what runs, as libvirt
itself shows them; or `diff` names the place. A walk is told by its seed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping

import hypothesis
import libvirt
import pytest
from hypothesis import stateful
from hypothesis import strategies as st

from tests.vm.conftest import PATIENCE, Result, Site
from tests.vm.killing import killed
from tests.vm.reaching import free_port

pytestmark = [pytest.mark.long, pytest.mark.vm, pytest.mark.timeout(1500)]

MIB = 1 << 20
LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
FOREIGN_CARD = (
    "<interface type='user'><mac address='52:54:00:00:00:99'/><model type='virtio'/></interface>"
)
UNTELLABLE = "what the spec changed since cannot be told from that"
_PIDS = pathlib.Path("/run/libvirt/qemu")


@dataclasses.dataclass
class Wish:
    """What the spec says; sizes in MiB, 0 for what is not there."""

    cpus: int = 1
    memory: int = 160
    data: int = 16
    more: int = 0
    ports: tuple[int, ...] = ()
    medium: str = "one"
    description: str = ""
    iops: int = 0
    quota: int = 0
    cards: int = 1

    def text(self) -> str:
        """Return the spec, but for the lines that name the machine."""
        disks = [f"{{name: {name}, size: {size}MiB}}" for name, size in self.disks().items()]
        forwards = [f"{{host: {port}, guest: 22}}" for port in self.ports]
        limits = [f"disk_read_iops: {self.iops}"] if self.iops and disks else []
        limits += [f"cpu_quota: {self.quota}%"] if self.quota else []
        return (
            "accel: tcg\ndevices: virtio\nmemory_max: 256MiB\ncpus_max: 3\n"
            f"cpus: {self.cpus}\ndisks: [{', '.join(disks)}]\ncdroms: [./{self.medium}.iso]\n"
            f"networks: [{', '.join(['{kind: user}'] * self.cards)}]\n"
            f"forwards: [{', '.join(forwards)}]\nresources: {{{', '.join(limits)}}}\n"
            + (f"description: {self.description}\n" if self.description else "")
        )

    def disks(self) -> dict[str, int]:
        return {name: size for name in ("data", "more") if (size := getattr(self, name))}

    def things(self) -> dict[str, object]:
        """Return what `seen` finds where all is as the spec says, by what `diff` calls it."""
        sizes = {f"disks[{name}]": size for name, size in self.disks().items()}
        return {
            **{f"disks[{name}]": 0 for name in ("data", "more")},
            **sizes,
            "cpus": self.cpus,
            "memory": self.memory,
            "cdroms": f"{self.medium}.iso",
            "description": self.description,
            "disk_read_iops": self.iops if sizes else 0,
            "cpu_quota": self.quota,
            "nics": self.cards,
        }


def seen(domain: libvirt.virDomain, *, runs: bool) -> dict[str, object]:
    """Return what libvirt shows of the running machine, or of its definition."""
    root = ET.fromstring(domain.XMLDesc(0 if runs else libvirt.VIR_DOMAIN_XML_INACTIVE))
    processors = root.find("vcpu")
    assert processors is not None
    tunes = {int(each.text or "0") for each in root.iterfind(".//iotune/read_iops_sec")}
    medium = root.find(".//disk[@device='cdrom']/source")
    return {
        **{f"disks[{name}]": _size(domain, root, name, runs=runs) for name in ("data", "more")},
        "cpus": int(processors.get("current") or processors.text or "0"),
        # A balloon gives or takes a page more or less.
        "memory": round(int(root.findtext("currentMemory") or "0") / 1024),
        "cdroms": pathlib.Path(medium.get("file", "")).name if medium is not None else "",
        "description": root.findtext("description") or "",
        "disk_read_iops": max(tunes, default=0),
        # What was taken away is -1.
        "cpu_quota": max(0, int(root.findtext("cputune/global_quota") or "0")) // 1000,
        "nics": len(root.findall(".//interface")),
    }


def _size(domain: libvirt.virDomain, root: ET.Element, name: str, *, runs: bool) -> int:
    """Return a disk's size in MiB; 0 where there is none of that name."""
    for disk in root.iterfind(".//disk[@device='disk']"):
        source, target = disk.find("source"), disk.find("target")
        if source is None or target is None:
            continue
        if pathlib.Path(source.get("file", "")).name == f"{name}.qcow2":
            if runs:
                return int(domain.blockInfo(target.get("dev", ""))[0]) // MIB
            # One that is defined and not plugged in yet is unknown to QEMU.
            command = ["qemu-img", "info", "-U", "--output=json", source.get("file", "")]
            found = subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
            return int(json.loads(found.stdout)["virtual-size"]) // MIB
    return 0


class Machine:
    """The machine of all walks, and how it is looked at."""

    def __init__(self, site: Site, connection: libvirt.virConnect) -> None:
        self.site = site
        self.connection = connection
        self.name = site.name("walk")
        self.ports = [free_port() for _ in range(2)]
        self.path = ""

    @property
    def domain(self) -> libvirt.virDomain:
        return self.connection.lookupByName(self.name)

    @property
    def runs(self) -> bool:
        return bool(self.domain.isActive())

    def write(self, wish: Wish) -> None:
        self.path, _ = self.site.spec("", self.name)
        head = pathlib.Path(self.path).read_text()
        head = head.replace("memory: 128MiB", f"memory: {wish.memory}MiB")
        pathlib.Path(self.path).write_text(head + wish.text())

    def named(self) -> tuple[dict[str, str], list[str]]:
        """Return what `diff` says: the changes with when they take hold, and the drift."""
        (found,) = self.site.run("diff", self.path, "--json").json["machines"]
        assert found["refusal"] == ""
        assert found["interrupted"] == ""
        return {one["path"]: one["effect"] for one in found["changes"]}, found["drift"]

    def pull_down(self) -> None:
        os.kill(int((_PIDS / f"{self.name}.pid").read_text()), signal.SIGKILL)
        end = time.monotonic() + PATIENCE
        while self.runs:
            assert time.monotonic() < end
            time.sleep(0.02)


def _memory(machine: Machine, number: int) -> None:
    machine.domain.setMemoryFlags((140 + number) * 1024, LIVE)
    end = time.monotonic() + PATIENCE
    while seen(machine.domain, runs=True)["memory"] != 140 + number:
        assert time.monotonic() < end
        time.sleep(0.05)


def _edit(old: str, new: str) -> Callable[[Machine, int], None]:
    """Return what does as `virsh edit` does."""

    def edited(machine: Machine, number: int) -> None:
        xml = machine.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        changed = re.sub(old, new.format(number=number), xml, count=1)
        machine.connection.defineXML(changed)

    return edited


def _card(machine: Machine, _number: int) -> None:
    # It may be there already, or find no slot.
    with contextlib.suppress(libvirt.libvirtError):
        machine.domain.attachDeviceFlags(FOREIGN_CARD, LIVE)


def _describe(machine: Machine, number: int) -> None:
    kind = libvirt.VIR_DOMAIN_METADATA_DESCRIPTION
    machine.domain.setMetadata(kind, f"of others {number}", None, None, LIVE)


def _medium(machine: Machine, _number: int) -> None:
    root = ET.fromstring(machine.domain.XMLDesc())
    drive = root.find(".//disk[@device='cdrom']")
    assert drive is not None
    source = drive.find("source")
    there = source.get("file", "") if source is not None else ""
    other = "two.iso" if there.endswith("one.iso") else "one.iso"
    if source is None:
        source = ET.SubElement(drive, "source")
    source.set("file", str(machine.site.specs / other))
    machine.domain.updateDeviceFlags(ET.tostring(drive, encoding="unicode"), LIVE)


def _throttle(machine: Machine, number: int) -> None:
    for disk in ET.fromstring(machine.domain.XMLDesc()).iterfind(".//disk[@device='disk']/target"):
        machine.domain.setBlockIoTune(disk.get("dev", ""), {"read_iops_sec": 600 + number}, LIVE)


def _processors(machine: Machine, _number: int) -> None:
    # More than there are, for QEMU under TCG lets none go; or as many.
    machine.domain.setVcpusFlags(3, LIVE)


def _quota(machine: Machine, number: int) -> None:
    quota = {"global_quota": (200 + number) * 1000}
    machine.domain.setSchedulerParametersFlags(quota, LIVE)


WHILE_IT_RUNS: Mapping[str, Callable[[Machine, int], None]] = {
    "setmem": _memory,
    "attach": _card,
    "desc": _describe,
    "schedinfo": _quota,
    "change-media": _medium,
    "blkdeviotune": _throttle,
    "setvcpus": _processors,
}
IN_THE_DEFINITION: Mapping[str, Callable[[Machine, int], None]] = {
    "on_crash": _edit("<on_crash>[a-z]*", "<on_crash>destroy"),
    "memory": _edit("(<currentMemory[^>]*>)[0-9]*", r"\g<1>{number}000"),
    "title": _edit("(<title>[^<]*</title>)?(\\s*)<memory ", r"\2<title>{number}</title>\2<memory "),
}


EDITS = st.lists(
    st.tuples(
        st.sampled_from([field.name for field in dataclasses.fields(Wish)]), st.integers(0, 8)
    ),
    min_size=0,
    max_size=4,
)


@dataclasses.dataclass
class Others:
    """What other hands changed and nobody put right yet."""

    definition: bool = False
    running: bool = False
    card: bool = False

    @property
    def any(self) -> bool:
        return self.definition or self.running or self.card


class Walk(stateful.RuleBasedStateMachine):
    """Each step is a few edits, and then what befalls the machine before it is looked at."""

    machine: Machine

    def __init__(self) -> None:
        super().__init__()
        self.wish = Wish()
        self.others = Others()
        self.largest = {"data": self.wish.data, "more": self.wish.more}
        self.number = 0
        self.machine.write(self.wish)
        self.machine.site.run("up", self.machine.path)

    def teardown(self) -> None:
        self.machine.site.run("down", "-y", self.machine.name)

    def edited(self, edits: list[tuple[str, int]]) -> None:
        """Carry out edits; a disk is never asked for smaller than it was."""
        for what, number in edits:
            self.number += 1
            if what in self.largest:
                size = (0, self.largest[what] + number, max(16, self.largest[what]))[number % 3]
                self.largest[what] = max(self.largest[what], size)
                setattr(self.wish, what, size)
            else:
                setattr(self.wish, what, self._value(what, number))
        self.machine.write(self.wish)

    def _value(self, what: str, number: int) -> object:
        return {
            "cpus": 1 + number % 3,
            "memory": 128 + 32 * (number % 4),
            "ports": tuple(self.machine.ports[: number % 3]),
            "medium": ("one", "two")[number % 2],
            "description": ("", f"step {self.number}")[number % 2],
            "iops": (0, 100, 500)[number % 3],
            "quota": (0, 150, 180)[number % 3],
            "cards": 1 + number % 2,
        }[what]

    @stateful.rule(edits=EDITS, take_over=st.booleans())
    def up(self, edits: list[tuple[str, int]], take_over: bool) -> None:
        self.edited(edits)
        self.bring_up(take_over=take_over)

    @stateful.rule(edits=EDITS, when=st.integers(1, 40), late=st.booleans())
    def up_is_killed(self, edits: list[tuple[str, int]], when: int, late: bool) -> None:
        self.edited(edits)
        moment = "after" if late else "before"
        if killed(self.machine.site, when, moment, "up", self.machine.path):
            # How far it came is unknown.
            self.bring_up(take_over=False)
        else:
            self.check(take_over=False)

    @stateful.precondition(lambda self: self.machine.runs)
    @stateful.rule(how=st.sampled_from(sorted(WHILE_IT_RUNS)), number=st.integers(0, 40))
    def other_hands_change_what_runs(self, how: str, number: int) -> None:
        WHILE_IT_RUNS[how](self.machine, number)
        if how == "attach":
            self.others.card = True
        else:
            self.others.running = True

    @stateful.rule(how=st.sampled_from(sorted(IN_THE_DEFINITION)), number=st.integers(100, 200))
    def other_hands_change_the_definition(self, how: str, number: int) -> None:
        IN_THE_DEFINITION[how](self.machine, number)
        self.others.definition = True

    @stateful.rule(how=st.sampled_from(["stop", "kill", "start", "restart"]))
    def power(self, how: str) -> None:
        if how == "kill" and self.machine.runs:
            self.machine.pull_down()
        elif how in ("start", "restart"):
            words = ["--force"] if how == "restart" else []
            self.machine.site.run(how, *words, self.machine.name)
        else:
            self.machine.site.run("stop", "--force", self.machine.name)
        if how != "start":
            self.others.running = self.others.card = False

    def bring_up(self, *, take_over: bool) -> None:
        began = self.machine.runs
        words = ["--take-over"] if take_over else []
        result = self.machine.site.run("up", *words, self.machine.path)
        if not began:
            self.others.running = self.others.card = False
        if take_over:
            self.others.definition = self.others.running = False
        self.check(take_over=take_over, said=result)

    def check(self, *, take_over: bool, said: Result | None = None) -> None:
        """Compare what libvirt shows with the spec, and what differs with what `diff` names."""
        machine, wanted = self.machine, self.wish.things()
        assert machine.runs
        changes, drift = machine.named()
        named = [*changes, *drift]
        told = f"{self.wish} {self.others} take-over {take_over}: {changes} {drift} {said}"
        for runs in (True, False):
            found = seen(machine.domain, runs=runs)
            for thing, value in wanted.items():
                if found[thing] != value and not _is_named(thing, named):
                    raise AssertionError(f"{thing}: {found[thing]} is not {value}. {told}")
        if not self.others.definition:
            assert "live" not in changes.values(), told
        if not self.others.any:
            assert drift == [], told
        ports = {int(str(each).split(":")[1].split()[0]) for each in self._forwards()}
        if not self.others.definition:
            assert ports == set(self.wish.ports), told
        status = machine.site.status(machine.name)
        assert bool(status["drift"]) == bool(drift), (status["drift"], told)
        assert status["interrupted"] == "", told

    def _forwards(self) -> list[str]:
        found = self.machine.site.status(self.machine.name)["forwards"]
        # One of its own leads to the ssh server.
        return [each for each in found if any(str(port) in each for port in self.machine.ports)]


def _is_named(thing: str, named: list[str]) -> bool:
    """Tell whether `diff` names the place, by whatever part of it."""
    words = {"nics": ("nics", "interface"), "cdroms": ("cdrom",)}.get(thing, (thing,))
    return any(word in place or UNTELLABLE in place for word in words for place in named)


@pytest.fixture(scope="module")
def machine(site: Site, libvirt_daemon: str) -> Iterator[Machine]:
    for name in ("one", "two"):
        (site.specs / f"{name}.iso").write_bytes(f"medium {name}\n".encode() + bytes(1 << 16))
        (site.specs / f"{name}.iso").chmod(0o644)
    connection = libvirt.open(libvirt_daemon)
    yield Machine(site, connection)
    connection.close()


@pytest.mark.parametrize(
    ("seed", "count"),
    [
        pytest.param(int(os.environ.get("VMCTL_WALK_SEED", "4")), 60, id="short"),
        pytest.param(random.randrange(1 << 32), 200, id="soak", marks=pytest.mark.soak),
    ],
)
def test_walk(machine: Machine, seed: int, count: int) -> None:
    """`VMCTL_WALK_SEED=N` walks another way; a walk that fails says which one it was."""
    settings = hypothesis.settings(
        # The first example is always the simplest one: nearly nothing.
        max_examples=2,
        stateful_step_count=count,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    Walk.machine = machine
    print(f"Seed of this walk: {seed}")
    stateful.run_state_machine_as_test(hypothesis.seed(seed)(Walk), settings=settings)
