"""Sockets between host and guest without a network."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Machine
from vmctl.machine.xml.element import Writer


def write(machine: Machine, out: Writer, devices: ET.Element) -> None:
    """Write <vsock> where the host has /dev/vhost-vsock; starting fails without it."""
    if machine.vsock:
        vsock = out.add(
            devices, "vsock", model="virtio", why="host: /dev/vhost-vsock is there (mode paravirt)"
        )
        out.add(vsock, "cid", auto="yes")


def read(root: ET.Element) -> bool:
    """Return whether the machine has one."""
    return root.find("devices/vsock") is not None
