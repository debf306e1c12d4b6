"""A guided tour of a mode: from the spec's line to the XML, QEMU's argument and the guest. Pure."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from vmctl.machine.model import Accel, Machine, Mode
from vmctl.machine.xml.element import Writer

_RECORDED = pathlib.Path(__file__).parent / "recorded"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One thing a machine is made of, and where it is looked for at each stage.

    `elements` are paths in the domain, `arguments` regular expressions over QEMU's options with
    their values, `seen` the key of what was recorded in a guest.
    """

    name: str
    title: str
    elements: tuple[str, ...]
    arguments: tuple[str, ...]
    seen: str
    words: str


STATIONS = (
    Station(
        name="processor",
        title="Who executes the instructions",
        elements=(".", "cpu"),
        arguments=(r"-accel .*", r"-cpu .*", r"-machine .*", r"-smp .*"),
        seen="processor",
        words="TCG translates each block of the guest's code into the host's and keeps it; KVM "
        "lets the processor run it in guest mode, and is asked only where it exits. The guest "
        "learns who is below from CPUID leaf 0x40000000.",
    ),
    Station(
        name="memory",
        title="Memory",
        elements=("memory", "devices/memballoon"),
        arguments=(r"-m .*", r"-object .*pc\.ram.*", r"-device .*balloon.*"),
        seen="memory",
        words="The guest's memory is memory of the QEMU process. TCG looks each address up in "
        "software; KVM gives the processor a second set of page tables. A balloon is a device "
        "through which the guest gives pages back: only a guest that cooperates has one.",
    ),
    Station(
        name="disk",
        title="Disk",
        elements=("devices/disk",),
        arguments=(r"-device .*(virtio-blk|ide-hd).*", r"-blockdev .*format.*"),
        seen="disk",
        words="An emulated AHCI controller is driven through registers, and each access leaves the "
        "guest. virtio-blk takes requests from a ring in shared memory and is told once.",
    ),
    Station(
        name="network",
        title="Network card",
        elements=("devices/interface",),
        # Asked for a command line, libvirt writes every back end as a tap: not shown.
        arguments=(r"-device .*(e1000|virtio-net).*",),
        seen="network",
        words="e1000e is a card that Intel sold; the guest's driver does not know that this one is "
        "a program. virtio-net is a card that was never built: driver and device are made for "
        "each other, with segments in place of frames.",
    ),
    Station(
        name="clock",
        title="Clock",
        elements=("clock",),
        arguments=(r"-global .*(hpet|pit).*", r"-rtc .*", r"-no-hpet"),
        seen="clock",
        words="kvmclock is a page that the host keeps up to date and the guest reads without an "
        "exit. Without it there are the emulated timers, HPET and ACPI, and the time-stamp counter "
        "where the guest trusts it.",
    ),
    Station(
        name="console",
        title="Console and channels",
        elements=("devices/serial", "devices/channel"),
        arguments=(r"-chardev pty.*", r"-device .*(isa-serial|virtserialport).*"),
        seen="console",
        words="A serial port exists in every mode: it is what vmctl watches. The guest agent's "
        "channel is a virtio device, and so exists only where the devices are virtio.",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A station as one machine has it; empty parts are not known here."""

    title: str
    words: str
    reasons: tuple[str, ...]
    xml: tuple[str, ...]
    argv: tuple[str, ...]
    guest: tuple[str, ...]


def tour(machine: Machine, written: Writer, argv: Sequence[str]) -> list[Stop]:
    """Return the stops for a machine; `argv` is QEMU's command line, empty where not known."""
    pairs = _options(argv)
    seen = recorded(machine.mode.value)
    return [_stop(station, written, pairs, seen) for station in STATIONS]


def _stop(station: Station, written: Writer, pairs: list[str], seen: dict[str, list[str]]) -> Stop:
    elements = [found for path in station.elements for found in _found(written.root, path)]
    reasons = [reason for each in elements for reason in _reasons(written, each)]
    matching = [
        pair for pair in pairs if any(re.fullmatch(each, pair) for each in station.arguments)
    ]
    return Stop(
        title=station.title,
        words=station.words,
        reasons=tuple(dict.fromkeys(reasons)),
        xml=tuple(_shown(each, written.root) for each in elements),
        argv=tuple(matching),
        guest=tuple(seen.get(station.seen, ())),
    )


def _found(root: ET.Element, path: str) -> list[ET.Element]:
    return [root] if path == "." else root.findall(path)


def _reasons(written: Writer, element: ET.Element) -> list[str]:
    whole = [element] if element is written.root else list(element.iter())
    return [written.reasons[each] for each in whole if each in written.reasons]


def _shown(element: ET.Element, root: ET.Element) -> str:
    """Return an element as text: of the domain itself, its first line."""
    if element is root:
        return f'<domain type="{root.get("type")}">'
    copy = ET.fromstring(ET.tostring(element))  # noqa: S314  (our own element)
    ET.indent(copy)
    return ET.tostring(copy, encoding="unicode").strip()


def _options(argv: Sequence[str]) -> list[str]:
    """Return QEMU's options, each with its value."""
    pairs: list[str] = []
    for word in argv[1:]:
        if word.startswith("-") or not pairs:
            pairs.append(word)
        else:
            pairs[-1] += f" {word}"
    return pairs


def recorded(mode: str) -> dict[str, list[str]]:
    """Return what a guest of this mode showed in a real run; nothing where none was recorded."""
    try:
        data = json.loads((_RECORDED / f"{mode}.json").read_text())
    except OSError:
        return {}
    return {str(key): [str(line) for line in lines] for key, lines in data.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Controller:
    """A limit on the QEMU process, as cgroups of either version name it."""

    what: str
    first: str
    second: str


CONTROLLERS = (
    Controller("share of the processors", "cpu.shares", "cpu.weight"),
    Controller("most of the processors", "cpu.cfs_quota_us", "cpu.max"),
    Controller("which processors", "cpuset.cpus", "cpuset.cpus"),
    Controller("most memory", "memory.limit_in_bytes", "memory.max"),
    Controller("share of the disk", "blkio.weight", "io.weight"),
    Controller("most of the disk", "blkio.throttle.*", "io.max"),
    Controller("most tasks", "pids.max", "pids.max"),
    Controller("which devices", "devices.allow", "a BPF program"),
)

HOLDING = (
    "QEMU is an ordinary process of the host, under an account of its own (libvirt-qemu on Debian) "
    "for qemu:///system. Libvirt gives it a mount namespace with a /dev of its own, which holds "
    "nothing but the devices that the machine needs, and a cgroup: "
    "machine.slice/machine-qemu-N-NAME.scope under systemd, machine/qemu-N-NAME.libvirt-qemu "
    "without. It shares the host's PID, network and user namespaces, unlike a container."
)

_BETWEEN = (
    "The operating system becomes the hypervisor: KVM is a module of Linux, and Linux schedules "
    "guests as processes. By where it runs it is type I, by how it is used type II."
)
_CONTAINERS = (
    "One kernel for all, which shows each its own names (namespaces) and counts what each takes "
    "(cgroups). Nothing is emulated; the kernel is the boundary."
)
TYPES = (
    (
        "Type I",
        "The hypervisor is what the machine starts; the first guest manages the others.",
        "ESXi, Xen, Hyper-V",
    ),
    (
        "Type II",
        "The hypervisor is a program on an operating system that was there before it.",
        "VirtualBox, VMware Workstation, QEMU alone (TCG)",
    ),
    (
        "between",
        _BETWEEN,
        "KVM with QEMU, as vmctl uses it",
    ),
    (
        "no VM",
        _CONTAINERS,
        "containers: runc, crun, Docker, Podman, LXC",
    ),
)
"""Kind, what it means, who."""


def spec_line(mode: Mode) -> str:
    """Return what a spec says to get a mode."""
    if mode is Mode.TCG_VIRTIO:
        return "accel: tcg and devices: virtio (what mode: auto means without KVM)"
    return f"mode: {mode}"


def rings(accel: Accel) -> str:
    """Return where the guest's two rings are."""
    if accel is Accel.KVM:
        return (
            "The guest's kernel is in ring 0 and its programs in ring 3 of guest mode; the host's "
            "kernel with KVM is outside, and QEMU in ring 3 of the host."
        )
    return (
        "Both rings of the guest exist in QEMU's tables only: all of it runs as translated code in "
        "ring 3 of the host. TCG is no security boundary."
    )
