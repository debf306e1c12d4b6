"""Directories of the host in the guest: 9p, served by QEMU itself, or virtiofs."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Machine, Mount, Share
from vmctl.machine.xml.element import Writer
from vmctl.machine.xml.metadata import Metadata

_ALIAS = "ua-mount"
_SQUASH = "squash"
"""QEMU's security_model=none: files on the host get ordinary modes and belong to QEMU's account."""


def write_memory(machine: Machine, out: Writer) -> None:
    """Write <memoryBacking>: virtiofsd is another process and must see the guest's memory."""
    if any(mount.share is Share.VIRTIOFS for mount in machine.mounts):
        backing = out.add(
            out.root,
            "memoryBacking",
            why="spec mounts: virtiofsd reads and writes the guest's memory",
        )
        out.add(backing, "source", type_="memfd")
        out.add(backing, "access", mode="shared")


def write(machine: Machine, out: Writer, devices: ET.Element) -> None:
    """Write a <filesystem> for each mount."""
    for index, mount in enumerate(machine.mounts):
        if mount.share is Share.VIRTIOFS:
            element = _write_virtiofs(mount, out, devices)
        else:
            element = _write_9p(mount, out, devices)
        out.add(element, "source", dir=mount.host)
        out.add(element, "target", dir=mount.tag)
        if not mount.writable:
            out.add(element, "readonly", why="host: QEMU refuses every write, whatever the guest")
        out.add(element, "alias", name=f"{_ALIAS}{index}")


def _write_virtiofs(mount: Mount, out: Writer, devices: ET.Element) -> ET.Element:
    why = f"spec mounts '{mount.guest}': writable, so virtiofs, which keeps owners"
    # Libvirt knows no other accessmode for virtiofs.
    element = out.add(devices, "filesystem", type_="mount", accessmode="passthrough", why=why)
    out.add(element, "driver", type_="virtiofs")
    return element


def _write_9p(mount: Mount, out: Writer, devices: ET.Element) -> ET.Element:
    element = out.add(
        devices,
        "filesystem",
        type_="mount",
        accessmode=_SQUASH,
        multidevs="remap",
        why=f"spec mounts '{mount.guest}': 9p; inode numbers stay unique across the file systems "
        "below the directory",
    )
    out.add(element, "driver", type_="path")
    return element


def read(root: ET.Element, own: Metadata | None) -> tuple[Mount, ...]:
    """Return the mounts; those that other hands plugged in are left out."""
    places = own.mounts if own is not None else {}
    found = []
    for element in root.iterfind("devices/filesystem"):
        driver, source = element.find("driver"), element.find("source")
        tag = _attribute(element.find("target"), "dir")
        if own is not None and tag not in places:
            continue
        virtiofs = _attribute(driver, "type") == "virtiofs"
        found.append(
            Mount(
                host=_attribute(source, "dir"),
                guest=places.get(tag, ""),
                writable=element.find("readonly") is None,
                share=Share.VIRTIOFS if virtiofs else Share.NINE_P,
            )
        )
    return tuple(found)


def _attribute(element: ET.Element | None, name: str) -> str:
    return element.get(name, "") if element is not None else ""
