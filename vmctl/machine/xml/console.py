"""The serial console, its log, and the guest agent's channel."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Machine
from vmctl.machine.xml.element import Writer

AGENT_CHANNEL = "org.qemu.guest_agent.0"


def write(machine: Machine, out: Writer, devices: ET.Element) -> None:
    """Write the first serial port with a log: the pty alone loses what comes before power-off."""
    serial = out.add(
        devices, "serial", type_="pty", why="always: the console is the first serial port"
    )
    out.add(
        serial,
        "log",
        file=machine.console_log,
        append="on",
        why="vmctl: 'logs' and readiness read what the guest wrote",
    )
    target = out.add(serial, "target", type_="isa-serial", port="0")
    out.add(target, "model", name="isa-serial")
    console = out.add(devices, "console", type_="pty")
    out.add(console, "log", file=machine.console_log, append="on")
    out.add(console, "target", type_="serial", port="0")
    if machine.virtio:
        channel = out.add(
            devices,
            "channel",
            type_="unix",
            why=f"mode {machine.mode}: the guest agent talks over virtio-serial",
        )
        out.add(channel, "target", type_="virtio", name=AGENT_CHANNEL)


def read_log(root: ET.Element) -> str:
    """Return the file that the first serial port is logged to."""
    log = root.find("devices/serial/log")
    return log.get("file", "") if log is not None else ""
