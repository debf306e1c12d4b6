"""Memory and processors."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Machine
from vmctl.machine.xml.element import Writer

_KIB = 1024


def write(machine: Machine, out: Writer) -> None:
    """Write how much the machine has and may grow to."""
    out.add(
        out.root,
        "memory",
        unit="KiB",
        text=str(machine.memory_max // _KIB),
        why="spec memory_max (memory, where it is not written): what the guest may grow to",
    )
    out.add(
        out.root,
        "currentMemory",
        unit="KiB",
        text=str(machine.memory // _KIB),
        why="spec memory: the balloon takes the rest",
    )
    out.add(
        out.root,
        "vcpu",
        placement="static",
        current=str(machine.cpus) if machine.cpus != machine.cpus_max else "",
        text=str(machine.cpus_max),
        why="spec cpus (current) and cpus_max: processors that can be plugged in later",
    )
    if machine.virtio and machine.disks:
        out.add(
            out.root,
            "iothreads",
            text="1",
            why=f"mode {machine.mode}: one thread serves the virtqueues of all disks",
        )


def read(root: ET.Element) -> tuple[int, int, int, int]:
    """Return memory, memory_max (bytes), cpus and cpus_max; libvirt gives memory in KiB."""
    most = int(root.findtext("memory") or 0) * _KIB
    memory = int(root.findtext("currentMemory") or 0) * _KIB or most
    vcpu = root.find("vcpu")
    cpus_max = int(vcpu.text or 1) if vcpu is not None else 1
    cpus = int(vcpu.get("current", cpus_max)) if vcpu is not None else 1
    return memory, most, cpus, cpus_max
