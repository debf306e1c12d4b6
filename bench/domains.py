"""The XML that virsh is given: vmctl's own, and what a person would have written. Pure."""

from __future__ import annotations

import dataclasses
import uuid
import xml.etree.ElementTree as ET

NAMESPACE = "urn:vmctl:machine:1"

DIFFERENCES = (
    "no USB controller is ruled out, so that there is one",
    "a USB tablet, a VGA card, a VNC display on loopback, a virtio balloon",
    "the NIC's option ROM is loaded",
    "the PCIe ports are those that libvirt adds by itself",
    "vmport, S3 and S4, the size of TCG's cache and what happens on a crash are left to libvirt",
    "libvirt labels the files itself (DAC)",
    "no metadata",
)
"""What `handwritten` has that vmctl's XML has not, and the other way round."""

_LEFT_TO_LIBVIRT = (
    "metadata",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "pm",
    "seclabel",
    "iothreads",
    "features/vmport",
    "features/tcg",
    "devices/controller",
    "devices/video",
    "devices/memballoon",
    "devices/interface/rom",
    "devices/interface/alias",
    "devices/rng",
    "devices/channel",
    "devices/vsock",
    "devices/panic",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What must differ between two domains of one host; the paths are files."""

    name: str
    console: str
    kernel: str = ""
    initrd: str = ""


def renamed(rendered: str, place: Place) -> str:
    """Return the same domain under another name, with its own UUID and console log."""
    root = _parsed(rendered)
    _move(root, place)
    return _text(root)


def handwritten(rendered: str, place: Place) -> str:
    """Return the same guest as the examples of libvirt's manual have it; see DIFFERENCES.

    Kernel, initramfs, command line, accelerator, CPU, memory, disks and the NIC's model are those
    of `rendered`: what is measured is what surrounds them.
    """
    root = _parsed(rendered)
    for path in _LEFT_TO_LIBVIRT:
        parent, _, tag = path.rpartition("/")
        for holder in root.findall(parent) if parent else [root]:
            for element in holder.findall(tag):
                holder.remove(element)
    devices = _found(root, "devices")
    ET.SubElement(devices, "input", type="tablet", bus="usb")
    ET.SubElement(devices, "graphics", type="vnc", autoport="yes", listen="127.0.0.1")
    ET.SubElement(ET.SubElement(devices, "video"), "model", type="vga")
    ET.SubElement(devices, "memballoon", model="virtio")
    _move(root, place)
    return _text(root)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What a tool needs to be told to make the same guest; memory in MiB."""

    type: str
    machine: str
    cpu: str
    cpus: str
    memory: int
    kernel: str
    initrd: str
    cmdline: str
    nic: str


def guest(rendered: str) -> Guest:
    """Return what the XML says of the guest itself."""
    root = _parsed(rendered)
    return Guest(
        type=root.get("type", ""),
        machine=_found(root, "os/type").get("machine", ""),
        cpu=_found(root, "cpu").get("mode", ""),
        cpus=root.findtext("vcpu") or "1",
        memory=int(root.findtext("memory") or "0") // 1024,
        kernel=root.findtext("os/kernel") or "",
        initrd=root.findtext("os/initrd") or "",
        cmdline=root.findtext("os/cmdline") or "",
        nic=_found(root, "devices/interface/model").get("type", ""),
    )


def _move(root: ET.Element, place: Place) -> None:
    _found(root, "name").text = place.name
    _found(root, "uuid").text = str(uuid.uuid5(uuid.NAMESPACE_DNS, place.name))
    for log in root.iterfind("devices/*/log"):
        log.set("file", place.console)
    for tag, path in (("os/kernel", place.kernel), ("os/initrd", place.initrd)):
        if path:
            _found(root, tag).text = path


def _found(root: ET.Element, path: str) -> ET.Element:
    element = root.find(path)
    if element is None:
        raise ValueError(f"the XML has no <{path}>")
    return element


def _parsed(text: str) -> ET.Element:
    ET.register_namespace("vmctl", NAMESPACE)
    return ET.fromstring(text)


def _text(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"
