"""Which kind of snapshot is possible, said before anything is touched. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import xml.etree.ElementTree as ET

from vmctl import errors
from vmctl.machine.model import Accel, DiskFormat, Machine
from vmctl.machine.state import State
from vmctl.store.layout import MachineFiles
from vmctl.store.snapshots import Kind


@dataclasses.dataclass(frozen=True, slots=True)
class Blocker:
    """Why the memory of a machine cannot be part of a snapshot, and the way out."""

    why: str
    way_out: str


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """The kind of snapshot that will be taken; `why` says why it has no memory, if it could."""

    kind: Kind
    why: str = ""
    way_out: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Carrier:
    """An image that holds snapshots."""

    name: str
    path: str


def carriers(machine: Machine, place: MachineFiles) -> tuple[Carrier, ...]:
    """Return the images that a machine's snapshots lie in; the first one takes the memory.

    Without a disk there is nothing but memory: that goes into an image of its own.
    """
    disks = tuple(Carrier(disk.name, disk.file) for disk in machine.disks)
    return disks or (Carrier("memory", str(place.vmstate)),)


def decide(
    machine: Machine, state: State, wish: Kind | None = None, plugged: tuple[str, ...] = ()
) -> Decision:
    """Return the kind of snapshot to take of a machine; `plugged` is what other hands plugged in.

    Raises ConflictError or UsageError, with the way out, where none or not the wished kind can be.
    """
    _refuse_state(machine, state)
    _refuse_raw(machine)
    if not state.active:
        if wish is Kind.MEMORY:
            raise errors.UsageError(
                f"Machine '{machine.name}' is {state}: it has no memory to keep.",
                hint=f"Start it first: vmctl start {machine.name} - or leave --memory out.",
            )
        _refuse_diskless(machine, state)
        return Decision(Kind.OFFLINE)
    blocked = blockers(machine, plugged)
    if wish is Kind.MEMORY and blocked:
        raise errors.UsageError(
            f"The memory of machine '{machine.name}' cannot be kept: {blocked[0].why}.",
            hint=blocked[0].way_out,
        )
    if wish is Kind.DISKS or blocked:
        _refuse_diskless(machine, state)
        first = blocked[0] if blocked and wish is None else Blocker("", "")
        return Decision(Kind.DISKS, first.why, first.way_out)
    return Decision(Kind.MEMORY)


def blockers(machine: Machine, plugged: tuple[str, ...] = ()) -> tuple[Blocker, ...]:
    """Return all that keeps a running machine's memory out of a snapshot."""
    found = []
    disks_only = f"Keep the disks alone: vmctl snapshot create --disks {machine.name} NAME"
    if machine.mounts:
        places = ", ".join(f"'{mount.guest}'" for mount in machine.mounts)
        found.append(
            Blocker(
                f"QEMU saves no memory while directories of the host are mounted ({places})",
                f"{disks_only} - or take mounts: out of the spec and use vmctl cp.",
            )
        )
    if machine.nested and machine.accel is Accel.KVM:
        found.append(
            Blocker(
                "it runs machines itself (nested: true), whose state KVM does not give out whole",
                f"{disks_only} - or stop it first.",
            )
        )
    if plugged:
        found.append(
            Blocker(
                f"other hands plugged something in that would be missing later ({plugged[0]})",
                f"{disks_only} - or unplug it first.",
            )
        )
    return tuple(found)


def _refuse_state(machine: Machine, state: State) -> None:
    if state is State.SAVED:
        raise errors.ConflictError(
            f"Machine '{machine.name}' is saved: its disks belong to the memory that lies beside.",
            hint=f"Let it go on first: vmctl start {machine.name}",
        )
    if state is State.STOPPING:
        raise errors.ConflictError(
            f"Machine '{machine.name}' is just stopping.",
            hint="Try again when it has stopped: vmctl ps",
        )
    if state in (State.CRASHED, State.FAILED):
        raise errors.ConflictError(
            f"The guest of machine '{machine.name}' does not run any more.",
            hint=f"Pull the plug first: vmctl stop --force {machine.name}",
        )


def _refuse_raw(machine: Machine) -> None:
    for disk in machine.disks:
        if disk.format is not DiskFormat.QCOW2:
            raise errors.UsageError(
                f"Disk '{disk.name}' of machine '{machine.name}' is {disk.format}, which holds no "
                "snapshots.",
                hint=f"Make a qcow2 of it: qemu-img convert -f {disk.format} -O qcow2 "
                f"'{disk.file}' NEW.qcow2",
            )


def _refuse_diskless(machine: Machine, state: State) -> None:
    if not machine.disks:
        way_out = (
            "" if state.active else f", or start it and keep its memory: vmctl start {machine.name}"
        )
        raise errors.UsageError(
            f"Machine '{machine.name}' has no disk that could be kept.",
            hint=f"Give it one in the spec (disks:){way_out}",
        )


_VOLATILE = frozenset(
    {
        *("metadata", "seclabel", "resource", "description", "currentMemory", "name", "uuid"),
        *("source", "log", "backingStore", "listen", "on_poweroff", "on_reboot", "on_crash"),
    }
)
"""Elements of a running domain that say nothing of the hardware its guest sees."""

_VOLATILE_ATTRIBUTES = ("id", "tty", "state", "port", "passwd", "index")


def hardware(live: str) -> str:
    """Return the digest (sha256, hex) of the hardware in a running domain's XML.

    Memory can be put back into the same QEMU process where this is what it was: machine type,
    processor, every device and its address.
    """
    root = ET.fromstring(live)  # noqa: S314  (libvirt's own output; its parser refuses entities)
    _strip(root)
    return hashlib.sha256(ET.canonicalize(ET.tostring(root)).encode()).hexdigest()


def agent_connected(live: str) -> bool:
    """Tell from a running domain's XML whether the guest's agent is there."""
    root = ET.fromstring(live)  # noqa: S314  (libvirt's own output; its parser refuses entities)
    targets = root.iterfind("devices/channel/target")
    return any(
        target.get("name") == "org.qemu.guest_agent.0" and target.get("state") == "connected"
        for target in targets
    )


def _strip(element: ET.Element) -> None:
    if element.tag not in ("controller", "vcpu", "numa"):
        for name in _VOLATILE_ATTRIBUTES:
            element.attrib.pop(name, None)
    if element.tag == "interface":
        for target in element.findall("target"):
            element.remove(target)
    element.text = (element.text or "").strip()
    element.tail = ""
    for child in list(element):
        if child.tag in _VOLATILE:
            element.remove(child)
        else:
            _strip(child)
