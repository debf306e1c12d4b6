"""The balloon: how memory goes back to the host."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Machine
from vmctl.machine.xml.element import Writer

_STATS_PERIOD_S = "10"


def write(machine: Machine, out: Writer, devices: ET.Element) -> None:
    """Write <memballoon>; libvirt adds a virtio balloon where none is written."""
    if not machine.virtio:
        out.add(
            devices,
            "memballoon",
            model="none",
            why=f"mode {machine.mode}: no virtio device at all (libvirt would add a balloon)",
        )
        return
    balloon = out.add(
        devices,
        "memballoon",
        model="virtio",
        autodeflate="on",
        freePageReporting="on",
        why=f"mode {machine.mode}: the guest hands back free pages and lends memory",
    )
    out.add(balloon, "stats", period=_STATS_PERIOD_S)


def read_virtio(root: ET.Element) -> bool:
    """Return whether this is a machine with virtio devices: only those have a balloon."""
    balloon = root.find("devices/memballoon")
    return balloon is not None and balloon.get("model") != "none"
