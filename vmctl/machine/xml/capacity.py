"""Memory and processors."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Machine
from vmctl.machine.xml.element import Writer, number

_KIB = 1024
_UNITS = {"b": 1, "bytes": 1} | {
    f"{letter}{suffix}": int(base**power)
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("", 1024), ("ib", 1024), ("b", 1000))
}
"""Bytes in libvirt's units of size."""


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
    bound = "; spec resources cpuset: the host's that they run on" if machine.limits.cpuset else ""
    out.add(
        out.root,
        "vcpu",
        placement="static",
        cpuset=machine.limits.cpuset,
        current=str(machine.cpus) if machine.cpus != machine.cpus_max else "",
        text=str(machine.cpus_max),
        why=f"spec cpus (current) and cpus_max: processors that can be plugged in later{bound}",
    )
    if machine.virtio and any(not disk.external for disk in machine.disks):
        out.add(
            out.root,
            "iothreads",
            text="1",
            why=f"mode {machine.mode}: one thread serves the virtqueues of all disks",
        )


def read(root: ET.Element) -> tuple[int, int, int, int]:
    """Return memory, memory_max (bytes), cpus and cpus_max; libvirt gives memory in KiB."""
    most = _bytes(root.find("memory"))
    memory = _bytes(root.find("currentMemory")) or most
    vcpu = root.find("vcpu")
    cpus_max = number(vcpu.text, 1) if vcpu is not None else 1
    cpus = number(vcpu.get("current"), cpus_max) if vcpu is not None else 1
    return memory, most, cpus, cpus_max


def _bytes(element: ET.Element | None) -> int:
    """Return a size in bytes; what people write by hand may have another unit than KiB."""
    if element is None:
        return 0
    return number(element.text) * _UNITS.get(element.get("unit", "KiB").lower(), _KIB)
