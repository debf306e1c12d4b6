"""Mainboard, firmware, and a kernel that is loaded directly."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Chipset, Disk, DiskFormat, Firmware, Image, Machine
from vmctl.machine.xml.element import Writer, yes_no

_HOSTNAME = "vmctl.hostname="
_KEY = "vmctl.key="


def write(machine: Machine, out: Writer, machine_type: str, ssh_key: str = "") -> None:
    """Write <os>; `machine_type` is the versioned name that libvirt froze, or empty.

    `ssh_key` is the public key that lets vmctl in, in base64.
    """
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
        out.add(block, "cmdline", text=kernel_arguments(machine, ssh_key), why=why)


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


def kernel_arguments(machine: Machine, ssh_key: str = "") -> str:
    """Return the kernel command line: the image's own, and what a guest without cloud-init needs.

    Those are its name, and the key that lets vmctl in, in base64.
    """
    assert machine.image is not None
    words = [machine.image.cmdline]
    if not machine.seed:
        words.append(f"{_HOSTNAME}{machine.hostname}")
        words += [f"{_KEY}{ssh_key}"] if ssh_key else []
    return " ".join(word for word in words if word)


def read_ssh_key(root: ET.Element) -> str:
    """Return the public key on the kernel command line, in base64, or nothing."""
    words = (root.findtext("os/cmdline") or "").split()
    return next((word.removeprefix(_KEY) for word in words if word.startswith(_KEY)), "")


def _image_arguments(cmdline: str) -> str:
    """Return what of a kernel command line is the image's own."""
    own = (word for word in cmdline.split() if not word.startswith((_HOSTNAME, _KEY)))
    return " ".join(own)


def read_image(root: ET.Element, declared: Image | None, disks: tuple[Disk, ...]) -> Image | None:
    """Return the image with the paths that the domain really uses."""
    if declared is None:
        return None
    return Image(
        name=declared.name,
        digest=declared.digest,
        disk=disks[0].base if disks else "",
        disk_format=disks[0].base_format if disks else DiskFormat.QCOW2,
        kernel=root.findtext("os/kernel") or "",
        initrd=root.findtext("os/initrd") or "",
        cmdline=_image_arguments(root.findtext("os/cmdline") or ""),
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
