"""From a domain that others made to a spec that means the same machine, and what it cannot say.

Pure. The spec says what a person would have written. What it leaves out is found by comparing the
domain with the one that the spec renders to: nothing is taken to be the same because it was read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence

from vmctl import errors, sizes
from vmctl.machine import compare, meanings
from vmctl.machine.model import Accel, Chipset, Devices, Disk, Firmware, Machine, Mode, NicKind
from vmctl.machine.xml import boot, capacity, cpu, display, interface, structure, tpm
from vmctl.machine.xml import disk as disk_xml
from vmctl.machine.xml import domain as domain_xml
from vmctl.spec import scalars

_MOST_DISKS, _MOST_CDROMS, _MOST_NICS = 16, 4, 8


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing in a domain that its spec cannot say; `here` is its place and value.

    `wanted` is what a machine of that spec would have there, empty where it would have nothing.
    """

    here: str
    meaning: str
    wanted: str = ""

    def __str__(self) -> str:
        return f"{self.here}: {self.meaning}"


def refuse_impossible(text: str) -> None:
    """Raise ConflictError for a domain that cannot be a machine at all, UsageError for its name."""
    root = _parsed(text)
    name = root.findtext("name") or ""
    kind, element = root.get("type", ""), root.find("os/type")
    arch = element.get("arch", "x86_64") if element is not None else "x86_64"
    hvm = (element.text or "").strip() if element is not None else ""
    if kind not in ("qemu", "kvm") or hvm != "hvm" or arch != "x86_64":
        raise errors.ConflictError(
            f"Domain '{name}' is no x86-64 machine of QEMU's: its type is '{kind}', its "
            f"architecture '{arch}'.",
            hint="Go on using it with virsh.",
        )
    if not _accepted(scalars.label, name):
        raise errors.UsageError(
            f"'{name}' cannot name a machine: a-z, 0-9 and hyphens inside, 63 characters at most.",
            hint=f"Give the domain another name while it is off: virsh domrename {name} NEW",
        )


def spec(text: str, *, autostart: bool) -> str:
    """Return the spec of a domain, without comments.

    Raises ConflictError where nothing is left that it could start from.
    """
    root = _parsed(text)
    accel = Accel.KVM if root.get("type") == "kvm" else Accel.TCG
    mode = Mode.of(accel, _devices(root))
    chipset, _ = boot.read_machine_type(root)
    disks = tuple(_disks(root))
    lines = [*_head(root, mode, chipset), *_size(root, mode)]
    lines += [
        f"  - {{name: {disk.name}, path: {_quoted(disk.file)}, format: {disk.format}}}"
        for disk in disks
    ]
    if disks:
        lines.insert(len(lines) - len(disks), "disks:")
    cdroms = tuple(_cdroms(root))
    lines += [f"cdroms: [{', '.join(map(_quoted, cdroms))}]"] if cdroms else []
    lines += _boot_order(root, disks, cdroms)
    lines += _networks(root)
    lines += _rest(root, autostart=autostart)
    return "\n".join(lines) + "\n"


def commented(spec_text: str, found: Sequence[Finding]) -> str:
    """Return a spec for people: what it is, and what of the domain it does not say."""
    lines = [
        "# Made by 'vmctl adopt' from a domain that was there before.",
        "# Disks with a path are used as they are; vmctl never makes, resizes or removes them.",
    ]
    if found:
        lines += ["#", "# The domain has more than this file can say. vmctl leaves it as it is:"]
        lines += [f"#   {_one_line(str(one))}" for one in found]
    return "\n".join(lines) + "\n" + spec_text


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def findings(machine: Machine, text: str) -> tuple[Finding, ...]:
    """Return what a domain has, or lacks, that the machine of its spec would not, sorted."""
    root = _parsed(text)
    _, machine_type = boot.read_machine_type(root)
    adopted = dataclasses.replace(machine, adopted=True)
    wanted = domain_xml.write(adopted, uuid=root.findtext("uuid") or "", machine_type=machine_type)
    found = [
        Finding(one.present, meanings.of(one.path, absent=one.found is None), one.wanted or "")
        for one in structure.differing(wanted.root, root)
    ]
    text = _with_metadata(root, adopted)
    back = domain_xml.read(text, autostart=machine.autostart).machine
    fields = {
        one.path.partition("[")[0].partition(".")[0]: one
        for one in compare.differences(back, machine)
    }
    for name, one in fields.items():
        if name == "chipset" or not found:
            found.append(
                Finding(f"{one.path}={one.before or 'nothing'}", meanings.FIELD, one.after)
            )
    if back.qemu_owner != machine.qemu_owner:
        here = f"domain/seclabel ({back.qemu_owner or 'absent'})"
        found.append(Finding(here, meanings.of("domain/seclabel"), machine.qemu_owner))
    return tuple(sorted(found, key=lambda one: one.here))


def _own_element(machine: Machine) -> ET.Element:
    written = domain_xml.write(machine).root.find("metadata")
    assert written is not None
    return written[0]


def _with_metadata(root: ET.Element, machine: Machine) -> str:
    """Return a domain as it will be when our element is in it."""
    copy = ET.fromstring(ET.tostring(root))  # noqa: S314  (libvirt's own output)
    block = copy.find("metadata")
    if block is None:
        block = ET.SubElement(copy, "metadata")
    block.append(_own_element(machine))
    return ET.tostring(copy, encoding="unicode")


def _parsed(text: str) -> ET.Element:
    try:
        return ET.fromstring(text)  # noqa: S314  (libvirt's own output; its parser refuses entities)
    except ET.ParseError as problem:
        raise errors.HypervisorError(f"Libvirt gave XML that cannot be read: {problem}.") from None


def _accepted(check: Callable[[object], object], value: str) -> bool:
    """Tell whether a spec's own rule takes a value."""
    try:
        check(value)
    except ValueError:
        return False
    return True


def _quoted(text: str) -> str:
    """Return a text as YAML, which takes JSON's quoting."""
    return json.dumps(text, ensure_ascii=False)


def _devices(root: ET.Element) -> Devices:
    """Return which kind of devices a domain has: those that carry its data decide."""
    buses = [
        element.get("bus", "")
        for each in root.iterfind("devices/disk")
        if each.get("device", "disk") == "disk" and (element := each.find("target")) is not None
    ]
    models = [element.get("type", "") for element in root.iterfind("devices/interface/model")]
    seen = buses or models
    if seen:
        return Devices.VIRTIO if any(one.startswith("virtio") for one in seen) else Devices.EMULATED
    balloon = root.find("devices/memballoon")
    virtio = balloon is not None and balloon.get("model") != "none"
    return Devices.VIRTIO if virtio else Devices.EMULATED


def _head(root: ET.Element, mode: Mode, chipset: Chipset) -> Iterator[str]:
    name = root.findtext("name") or ""
    yield f"name: {name}"
    yield f"project: {name}"
    description = (root.findtext("description") or "").strip()
    if description and _accepted(scalars.description, description):
        yield f"description: {_quoted(description)}"
    if mode is Mode.TCG_VIRTIO:
        yield f"accel: {mode.accel}"
        yield f"devices: {mode.devices}"
    else:
        yield f"mode: {mode}"
    if chipset is not Chipset.Q35:
        yield f"chipset: {chipset}"
    firmware = boot.read_firmware(root)
    if firmware is not Firmware.BIOS:
        yield f"firmware: {firmware}"


def _size(root: ET.Element, mode: Mode) -> Iterator[str]:
    memory, most, cpus, cpus_max = capacity.read(root)
    yield f"cpus: {cpus}"
    if cpus_max != cpus:
        yield f"cpus_max: {cpus_max}"
    balloon = mode.devices is Devices.VIRTIO
    yield f"memory: {_size_text(memory if balloon else most)}"
    if balloon and most != memory:
        yield f"memory_max: {_size_text(most)}"


def _size_text(size: int) -> str:
    return sizes.text(size // 1024 * 1024)


def _disks(root: ET.Element) -> Iterator[Disk]:
    """Yield the disks that a spec can name, called as their place on the bus is.

    One on another bus than vmctl's is named as well; that it is there is found by comparing.
    """
    count = 0
    for element in root.iterfind("devices/disk"):
        driver = element.find("driver")
        format_ = driver.get("type", "") if driver is not None else ""
        name, file = disk_xml.name_of(element), disk_xml.source_of(element)
        plain = element.get("device", "disk") == "disk" and format_ in ("qcow2", "raw")
        block = element.get("type") == "block"
        named = _accepted(scalars.label, name) and _sayable(file) and count < _MOST_DISKS
        if plain and named and block == file.startswith("/dev/"):
            count += 1
            format_of = disk_xml.format_of(format_)
            yield Disk(name=name, file=file, size=0, format=format_of, external=True)


def _sayable(path: str) -> bool:
    """Tell whether a spec can name a file; one with /../ in it would come back as another."""
    plain = os.path.isabs(path) and os.path.normpath(path) == path
    return plain and _accepted(scalars.file_path, path)


def _cdroms(root: ET.Element) -> Iterator[str]:
    files = (
        disk_xml.source_of(element)
        for element in root.iterfind("devices/disk[@device='cdrom']")
        if element.get("type") == "file"
    )
    yield from [file for file in files if _sayable(file)][:_MOST_CDROMS]


def _boot_order(root: ET.Element, disks: tuple[Disk, ...], cdroms: tuple[str, ...]) -> list[str]:
    known = [*(["disk"] if disks else []), *(["cdrom"] if cdroms else [])]
    usual = tuple(known)
    known += ["network"] if root.find("devices/interface") is not None else []
    known += [disk.name for disk in disks[1:]]
    order = tuple(word for word in disk_xml.read_boot_order(root, disks) if word in known)
    if not disks and not cdroms and "network" not in order:
        raise errors.ConflictError(
            f"Nothing of domain '{root.findtext('name')}' is left that a spec could start a "
            "machine from: a disk that is a file or a block device, a CD-ROM, or the network.",
            hint="Go on using it with virsh.",
        )
    return [f"boot_order: [{', '.join(order)}]"] if order and order != usual else []


def _networks(root: ET.Element) -> Iterator[str]:
    lines = []
    for nic in interface.read(root, None)[:_MOST_NICS]:
        words = [f"kind: {nic.kind}"]
        if nic.kind is NicKind.BRIDGE:
            words.append(f"bridge: {_quoted(nic.bridge)}")
        elif nic.kind is NicKind.NETWORK:
            if not re.fullmatch(scalars.IMAGE_NAME, nic.network):
                continue  # not a network at all, or one with a name that no spec can say
            words.append(f"network: {_quoted(nic.network)}")
        lines.append(f"  - {{{', '.join(words)}, mac: {_quoted(nic.mac)}}}")
    if lines:
        yield "networks:"
        yield from lines
    else:
        yield "networks: []"


def _rest(root: ET.Element, *, autostart: bool) -> Iterator[str]:
    if tpm.read(root):
        yield "tpm: true"
    if cpu.read_nested(root):
        yield "nested: true"
    if display.read(root).value != "none":
        yield f"display: {display.read(root)}"
    if autostart:
        yield "autostart: true"
