"""An emulated TPM 2.0 (swtpm)."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Chipset, Machine
from vmctl.machine.xml.element import Writer


def write(machine: Machine, out: Writer, devices: ET.Element) -> None:
    """Write <tpm>: CRB on q35, TIS on pc."""
    if machine.tpm:
        model = "tpm-crb" if machine.chipset is Chipset.Q35 else "tpm-tis"
        tpm = out.add(devices, "tpm", model=model, why="spec tpm: true; swtpm runs beside QEMU")
        out.add(tpm, "backend", type_="emulator", version="2.0")


def read(root: ET.Element) -> bool:
    """Return whether the machine has one."""
    return root.find("devices/tpm") is not None
