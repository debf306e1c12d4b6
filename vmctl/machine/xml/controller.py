"""Buses that devices hang on, and free slots for devices that come later."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Chipset, Display, Machine
from vmctl.machine.xml.element import Writer, number

SPARE_PORTS = 2
"""Root ports beyond those in use; libvirt itself leaves one, and none can be added later.

Each costs a guest under TCG about 30 ms of its boot.
"""


def write(machine: Machine, out: Writer, devices: ET.Element) -> None:
    """Write the controllers that libvirt would choose otherwise or not provide."""
    usb = machine.display is not Display.NONE and not machine.virtio
    out.add(
        devices,
        "controller",
        type_="usb",
        index="0",
        model="qemu-xhci" if usb else "none",
        why="display: a tablet needs USB" if usb else "always: no USB where nothing uses it",
    )
    if machine.virtio and machine.cdroms:
        out.add(devices, "controller", type_="scsi", index="0", model="virtio-scsi")
    if machine.virtio:
        out.add(devices, "controller", type_="virtio-serial", index="0", why="guest agent")
    if machine.chipset is Chipset.Q35:
        out.add(devices, "controller", type_="pci", index="0", model="pcie-root")
        for index in range(1, ports(machine) + 1):
            out.add(
                devices,
                "controller",
                type_="pci",
                index=str(index),
                model="pcie-root-port",
                why="vmctl: PCI Express devices are plugged into root ports; some stay free"
                if index == 1
                else "",
            )


_PCI_SLOTS = 32
_DIGITS = frozenset("0123456789abcdef")


def read_spare(root: ET.Element) -> int:
    """Return how many PCI devices can still be plugged into a running domain."""
    used = {
        (_hexadecimal(address.get("bus", "")), address.get("slot", ""))
        for address in root.iterfind("devices/*/address")
        if address.get("type") == "pci"
    }
    root_ports = {
        number(element.get("index"))
        for element in root.iterfind("devices/controller")
        if element.get("model") == "pcie-root-port"
    }
    if root_ports:
        return len(root_ports - {bus for bus, _ in used})
    return _PCI_SLOTS - len({slot for bus, slot in used if bus == 0}) - 1


def _hexadecimal(text: str) -> int:
    """Return a part of a PCI address, which libvirt writes as 0x1f."""
    digits = text.removeprefix("0x")
    return int(digits, 16) if digits.isalnum() and set(digits) <= _DIGITS else 0


def ports(machine: Machine) -> int:
    """Return how many root ports the machine has: one for each PCIe device, and spare ones."""
    count = len(machine.nics)
    if machine.virtio:
        balloon_rng_serial = 3
        count += len(machine.disks) + balloon_rng_serial
        count += bool(machine.cdroms) + bool(machine.seed) + machine.vsock + len(machine.mounts)
    if machine.display is not Display.NONE:
        count += 2
    return count + SPARE_PORTS
