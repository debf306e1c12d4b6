"""Disks and CD-ROMs: on the mode's bus, in the order of the spec."""

from __future__ import annotations

import dataclasses
import string
import xml.etree.ElementTree as ET

from vmctl.machine.model import Chipset, Disk, DiskFormat, Machine
from vmctl.machine.xml import limits
from vmctl.machine.xml.element import Writer, number
from vmctl.machine.xml.metadata import Metadata

IDE_UNITS = 4
_BOOT_DEVICES = {"hd": "disk", "cdrom": "cdrom", "network": "network"}
_SERIAL_LENGTH = 20
SEED = "ua-seed"
_ALIAS = "ua-disk-"
_OWNER_UNCHANGED = "vmctl: many machines share this file; libvirt must not change its owner"


@dataclasses.dataclass(frozen=True, slots=True)
class _Bus:
    name: str
    prefix: str
    why: str


def _disk_bus(machine: Machine) -> _Bus:
    if machine.virtio:
        return _Bus("virtio", "vd", f"mode {machine.mode}: virtio-blk, requests in shared memory")
    return _emulated_bus(machine)


def _emulated_bus(machine: Machine) -> _Bus:
    if machine.chipset is Chipset.Q35:
        return _Bus("sata", "sd", f"mode {machine.mode}: an emulated AHCI controller")
    return _Bus("ide", "hd", f"mode {machine.mode}: an emulated IDE controller (PIIX3)")


def _cdrom_bus(machine: Machine) -> _Bus:
    if machine.virtio:
        return _Bus("scsi", "sd", f"mode {machine.mode}: CD-ROMs hang on virtio-scsi")
    return _emulated_bus(machine)


def _target(bus: _Bus, index: int) -> str:
    letters = string.ascii_lowercase
    name = letters[index % 26]
    while index >= len(letters):
        index = index // 26 - 1
        name = letters[index % 26] + name
    return bus.prefix + name


def write(machine: Machine, out: Writer, devices: ET.Element) -> None:
    """Write the disks and then the CD-ROMs."""
    disk_bus, cdrom_bus = _disk_bus(machine), _cdrom_bus(machine)
    for index, disk in enumerate(machine.disks):
        _write_disk(machine, disk, _target(disk_bus, index), out, devices)
    first = len(machine.disks) if disk_bus.name == cdrom_bus.name else 0
    for index, file in enumerate(machine.cdroms):
        element = out.add(
            devices, "disk", type_="file", device="cdrom", why=f"spec cdroms; {cdrom_bus.why}"
        )
        out.add(element, "driver", name="qemu", type_="raw")
        source = out.add(element, "source", file=file)
        _keep_owner(machine, out, source)
        target = _target(cdrom_bus, first + index)
        out.add(element, "target", dev=target, bus=cdrom_bus.name)
        out.add(element, "readonly")
        _write_boot(machine, "cdrom", out, element, nth=index)
        out.add(element, "alias", name=f"ua-cdrom{index}")

    if machine.seed:
        _write_seed(machine, out, devices)


def _write_seed(machine: Machine, out: Writer, devices: ET.Element) -> None:
    """Write the disk that cloud-init looks for by its label.

    With virtio it is a read-only disk: every guest that has the root disk's driver reads it.
    """
    bus = _disk_bus(machine)
    others = len(machine.disks) + (0 if machine.virtio else len(machine.cdroms))
    element = out.add(
        devices,
        "disk",
        type_="file",
        device="disk" if machine.virtio else "cdrom",
        why=f"vmctl: what cloud-init reads at the first boot; {bus.why}",
    )
    out.add(element, "driver", name="qemu", type_="raw")
    out.add(element, "source", file=machine.seed)
    out.add(element, "target", dev=_target(bus, others), bus=bus.name)
    out.add(element, "readonly")
    out.add(element, "alias", name=SEED)


def read_seed(root: ET.Element) -> str:
    """Return the file of the seed, or nothing."""
    for element in root.iterfind("devices/disk"):
        alias, source = element.find("alias"), element.find("source")
        if alias is not None and alias.get("name") == SEED and source is not None:
            return source.get("file", "")
    return ""


def _write_disk(
    machine: Machine, disk: Disk, target: str, out: Writer, devices: ET.Element
) -> None:
    bus = _disk_bus(machine)
    block = is_block(disk)
    element = out.add(
        devices,
        "disk",
        type_="block" if block else "file",
        device="disk",
        why=f"spec disk '{disk.name}'; {bus.why}",
    )
    if disk.external:
        why = "spec disks path: used as it is"
        out.add(element, "driver", name="qemu", type_=disk.format.value, why=why)
        out.add(element, "source", **{"dev" if block else "file": disk.file})
        out.add(element, "target", dev=target, bus=bus.name)
    else:
        _write_own(machine, disk, target, out, element)
    limits.write_disk(machine.limits, element, out)
    if not disk.external:
        out.add(element, "serial", text=disk.name[:_SERIAL_LENGTH])
    if disk is machine.disks[0]:
        _write_boot(machine, "disk", out, element, nth=0)
    _write_boot(machine, disk.name, out, element, nth=0)
    out.add(element, "alias", name=f"ua-disk-{disk.name}")


def is_block(disk: Disk) -> bool:
    """Tell whether a disk is a block device of the host's."""
    return disk.external and disk.file.startswith("/dev/")


def _write_own(machine: Machine, disk: Disk, target: str, out: Writer, element: ET.Element) -> None:
    """Write how QEMU opens a disk of the machine's own: overlay, base, and nothing below."""
    paravirtual = machine.virtio
    out.add(
        element,
        "driver",
        name="qemu",
        type_=disk.format.value,
        cache="none" if disk.direct else "writeback",
        error_policy="stop",
        io=disk.aio if paravirtual else "",
        discard="unmap",
        iothread="1" if paravirtual else "",
        detect_zeroes="unmap" if paravirtual else "",
        why="host: cache none where the store's file system takes O_DIRECT; a full disk pauses "
        "the guest instead of corrupting it; freed blocks go back to the host",
    )
    out.add(element, "source", file=disk.file)
    if disk.base:
        backing = out.add(
            element,
            "backingStore",
            type_="file",
            why="vmctl: the chain is written out and ends, so that nothing is probed",
        )
        out.add(backing, "format", type_=disk.base_format.value)
        base = out.add(backing, "source", file=disk.base)
        _keep_owner(machine, out, base)
        out.add(backing, "backingStore")
    else:
        out.add(element, "backingStore")
    out.add(element, "target", dev=target, bus=_disk_bus(machine).name)


def _keep_owner(machine: Machine, out: Writer, source: ET.Element) -> None:
    # A label of one file is refused where the whole machine has a static one.
    if not machine.qemu_owner:
        out.add(source, "seclabel", model="dac", relabel="no", why=_OWNER_UNCHANGED)


def _write_boot(machine: Machine, what: str, out: Writer, element: ET.Element, nth: int) -> None:
    if what in machine.boot_order and nth == 0:
        position = machine.boot_order.index(what) + 1
        out.add(element, "boot", order=str(position), why="spec boot_order")


def read(root: ET.Element, own: Metadata | None) -> tuple[tuple[Disk, ...], tuple[str, ...]]:
    """Return the disks and the files of the CD-ROMs."""
    disks: list[Disk] = []
    cdroms: list[str] = []
    for element in root.iterfind("devices/disk"):
        if own is not None and not _ours(element, own):
            continue  # of other hands, or the seed
        file = source_of(element)
        if element.get("device") == "cdrom":
            cdroms.append(file)
        else:
            disks.append(_read_disk(element, file, own))
    return tuple(disks), tuple(cdroms)


def source_of(element: ET.Element) -> str:
    """Return the file or block device of a disk; nothing for what comes from elsewhere."""
    source = element.find("source")
    if source is None or element.get("type") not in ("file", "block"):
        return ""
    return source.get("file", "") or source.get("dev", "")


def sources(text: str) -> frozenset[str]:
    """Return the files and block devices of all disks of a domain, given as XML."""
    root = ET.fromstring(text)  # noqa: S314  (libvirt's own output; its parser refuses entities)
    return frozenset(map(source_of, root.iterfind("devices/disk"))) - {""}


def name_of(element: ET.Element) -> str:
    """Return what a disk is called: by its alias, or by its target where others made it."""
    alias, target = element.find("alias"), element.find("target")
    name = alias.get("name", "") if alias is not None else ""
    if name.startswith(_ALIAS):
        return name.removeprefix(_ALIAS)
    return target.get("dev", "") if target is not None else ""


def _ours(element: ET.Element, own: Metadata) -> bool:
    """Tell a disk of the machine from one that other hands plugged in."""
    alias = element.find("alias")
    name = alias.get("name", "") if alias is not None else ""
    if name.startswith((_ALIAS, "ua-cdrom")):
        return True
    if not own.adopted or name == SEED:
        return False
    if element.get("device") == "cdrom":
        return bool(source_of(element))
    return name_of(element) in own.disks


def _read_disk(element: ET.Element, file: str, own: Metadata | None) -> Disk:
    name = name_of(element)
    driver = element.find("driver")
    settings = driver.attrib if driver is not None else {}
    backing = element.find("backingStore/source")
    backing_format = element.find("backingStore/format")
    declared = own.disks.get(name) if own else None
    if declared is not None and declared.get("external") == "yes":
        return Disk(
            name=name, file=file, size=0, format=format_of(settings.get("type")), external=True
        )
    return Disk(
        name=name,
        file=file,
        size=number(declared.get("size")) if declared is not None else 0,
        keep=declared is not None and declared.get("keep") == "yes",
        format=format_of(settings.get("type")),
        base=backing.get("file", "") if backing is not None else "",
        base_format=format_of(backing_format.get("type") if backing_format is not None else None),
        direct=settings.get("cache") == "none",
        aio=settings.get("io", "threads"),
    )


def format_of(name: str | None) -> DiskFormat:
    """Return the format of a <driver>; libvirt always writes it."""
    return DiskFormat.RAW if name == "raw" else DiskFormat.QCOW2


def read_boot_order(root: ET.Element, disks: tuple[Disk, ...]) -> tuple[str, ...]:
    """Return what the firmware tries, in order; <os><boot> counts where no device has its place."""
    first = disks[0].name if disks else ""
    order: dict[int, str] = {}
    for element in root.iterfind("devices/disk"):
        boot = element.find("boot")
        if boot is not None:
            kind = "cdrom" if element.get("device") == "cdrom" else name_of(element)
            order[number(boot.get("order"))] = "disk" if kind == first else kind
    for element in root.iterfind("devices/interface/boot"):
        order[number(element.get("order"))] = "network"
    if order:
        return tuple(order[position] for position in sorted(order))
    if root.find("os/kernel") is not None or any(not disk.external for disk in disks):
        return ()
    words = (_BOOT_DEVICES.get(element.get("dev", ""), "") for element in root.iterfind("os/boot"))
    return tuple(word for word in words if word)
