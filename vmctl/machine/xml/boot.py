"""Mainboard, firmware, and a kernel that is loaded directly."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Chipset, Disk, DiskFormat, Firmware, Image, Machine
from vmctl.machine.xml.element import Writer, yes_no


def write(machine: Machine, out: Writer, machine_type: str) -> None:
    """Write <os>; `machine_type` is the versioned name that libvirt froze, or empty."""
    uefi = machine.firmware is not Firmware.BIOS
    block = out.add(
        out.root,
        "os",
        firmware="efi" if uefi else "",
        why=f"spec firmware: {machine.firmware}",
    )
    out.add(
        block,
        "type",
        arch="x86_64",
        machine=machine_type or machine.chipset.value,
        text="hvm",
        why="mode: q35 has PCI Express and AHCI; pc (i440FX) has IDE, for images without AHCI",
    )
    if uefi:
        _write_features(machine, out, block)
        out.add(block, "nvram", text=machine.nvram, why="vmctl: UEFI variables lie in the store")
    if machine.image is not None and machine.image.kernel:
        why = f"image {machine.image.name}: started without a boot loader"
        out.add(block, "kernel", text=machine.image.kernel, why=why)
        out.add(block, "initrd", text=machine.image.initrd, why=why)
        out.add(block, "cmdline", text=kernel_arguments(machine), why=why)


def _write_features(machine: Machine, out: Writer, block: ET.Element) -> None:
    """Write Secure Boot in so many words.

    Left out, libvirt takes the first firmware descriptor by file name, which enforces signatures.
    """
    secure = yes_no(machine.firmware is Firmware.UEFI_SECURE)
    firmware = out.add(
        block, "firmware", why="vmctl: Secure Boot is written on or off, never left to file order"
    )
    out.add(firmware, "feature", enabled=secure, name="enrolled-keys")
    out.add(firmware, "feature", enabled=secure, name="secure-boot")


def kernel_arguments(machine: Machine) -> str:
    """Return the kernel command line: the image's own and the machine's name."""
    assert machine.image is not None
    return f"{machine.image.cmdline} vmctl.hostname={machine.name}".strip()


def read_image(
    root: ET.Element, declared: Image | None, disks: tuple[Disk, ...], name: str
) -> Image | None:
    """Return the image with the paths that the domain really uses."""
    if declared is None:
        return None
    cmdline = root.findtext("os/cmdline") or ""
    return Image(
        name=declared.name,
        digest=declared.digest,
        disk=disks[0].base if disks else "",
        disk_format=disks[0].base_format if disks else DiskFormat.QCOW2,
        kernel=root.findtext("os/kernel") or "",
        initrd=root.findtext("os/initrd") or "",
        cmdline=cmdline.removesuffix(f"vmctl.hostname={name}").strip(),
    )


def read_firmware(root: ET.Element) -> Firmware:
    """Return the kind of firmware; libvirt 9.2 and later resolve it to a loader path."""
    block = root.find("os")
    if block is None:
        return Firmware.BIOS
    features = {
        feature.get("name"): feature.get("enabled") for feature in block.findall("firmware/feature")
    }
    loader = block.find("loader")
    secure = features.get("secure-boot") == "yes" and features.get("enrolled-keys") == "yes"
    if block.get("firmware") == "efi" or (loader is not None and loader.get("type") == "pflash"):
        return Firmware.UEFI_SECURE if secure else Firmware.UEFI
    return Firmware.BIOS


def read_machine_type(root: ET.Element) -> tuple[Chipset, str]:
    """Return the chipset and the versioned machine type."""
    element = root.find("os/type")
    machine_type = element.get("machine", "") if element is not None else ""
    return (Chipset.Q35 if "q35" in machine_type else Chipset.PC), machine_type
