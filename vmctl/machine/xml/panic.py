"""A device by which a guest kernel says that it panicked."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Machine
from vmctl.machine.xml.element import Writer


def write(machine: Machine, out: Writer, devices: ET.Element) -> None:
    """Write <panic>; the ISA model is what libvirt before 9.1 has."""
    if machine.virtio:
        out.add(
            devices,
            "panic",
            model="isa",
            why=f"mode {machine.mode}: a panic is reported at once instead of timing out",
        )
