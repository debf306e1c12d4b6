"""A screen, or none."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Display, Machine
from vmctl.machine.xml.element import Writer, number

LOOPBACK = "127.0.0.1"


def write(machine: Machine, out: Writer, devices: ET.Element, password: str) -> None:
    """Write <graphics> and <video>; `password` goes to libvirt only, never to `render`."""
    if machine.display is Display.NONE:
        video = out.add(devices, "video", why="spec display: none")
        out.add(video, "model", type_="none")
        return
    if machine.virtio:
        out.add(devices, "input", type_="tablet", bus="virtio", why="display: absolute pointer")
    else:
        out.add(devices, "input", type_="tablet", bus="usb", why="display: absolute pointer")
    graphics = out.add(
        devices,
        "graphics",
        type_="vnc",
        port="-1",
        autoport="yes",
        listen=LOOPBACK,
        passwd=password,
        why="spec display: vnc, reachable from this host only, with a password",
    )
    out.add(graphics, "listen", type_="address", address=LOOPBACK)
    video = out.add(devices, "video", why=f"mode {machine.mode}: the kind of graphics card")
    out.add(video, "model", type_="virtio" if machine.virtio else "vga")


def read(root: ET.Element) -> Display:
    """Return what kind of screen the machine has."""
    return Display.VNC if root.find("devices/graphics[@type='vnc']") is not None else Display.NONE


def read_port(text: str) -> int:
    """Return the VNC port in a running domain's XML, 0 where there is none."""
    graphics = ET.fromstring(text).find("devices/graphics")  # noqa: S314  (libvirt's own output)
    return number(graphics.get("port")) if graphics is not None else 0
