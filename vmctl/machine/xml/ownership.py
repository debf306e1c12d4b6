"""Who owns the files that QEMU opens."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Machine
from vmctl.machine.xml.element import Writer


def write(machine: Machine, out: Writer) -> None:
    """Write the static DAC label: QEMU runs as its own user, and libvirt changes no owner.

    With libvirt's dynamic label every file of the chain, the shared kernel included, is given to
    QEMU at each start and to root afterwards (security_dac.c).
    """
    if machine.qemu_owner:
        label = out.add(
            out.root,
            "seclabel",
            type_="static",
            model="dac",
            relabel="no",
            why="vmctl: it owns the files' permissions itself; shared images are never chowned",
        )
        out.add(label, "label", text=machine.qemu_owner)


def read(root: ET.Element) -> str:
    """Return the +uid:+gid of a static DAC label, or nothing."""
    for label in root.iterfind("seclabel"):
        if label.get("model") == "dac" and label.get("relabel") == "no":
            return label.findtext("label") or ""
    return ""
