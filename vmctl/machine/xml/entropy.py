"""Random numbers for the guest."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Machine
from vmctl.machine.xml.element import Writer


def write(machine: Machine, out: Writer, devices: ET.Element) -> None:
    """Write <rng>: early user space stalls without entropy."""
    if machine.virtio:
        rng = out.add(
            devices,
            "rng",
            model="virtio",
            why=f"mode {machine.mode}: entropy from the host, so that early boot does not stall",
        )
        out.add(rng, "backend", model="random", text="/dev/urandom")
