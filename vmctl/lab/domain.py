"""The domain of a machine in the lab: what `up` would start, and a second serial port. Pure."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from vmctl.machine.model import Accel, Disk, DiskFormat, Display, Machine
from vmctl.machine.xml import domain as domain_xml
from vmctl.machine.xml.element import Writer
from vmctl.store.storage import Storage

_WHY = "lab: the job's answers come out here, in every mode"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The files of a machine in the lab.

    `disk` carries the job, `initrd` has the starter behind the image's own, and `root` is the
    system's disk, made anew for each run, where the image has one.
    """

    disk: pathlib.Path
    root: pathlib.Path
    initrd: pathlib.Path
    answer: pathlib.Path
    console: pathlib.Path


def adapted(machine: Machine, places: Places, storage: Storage, size: int) -> Machine:
    """Return the machine with the job's disk of `size` bytes, and without what is the user's own.

    Forwarded ports, mounts and disks of the user stay out: several modes run one after the other,
    and none may change what another finds.
    """
    assert machine.image is not None
    carrier = Disk(
        name="lab",
        file=os.fspath(places.disk),
        size=size,
        format=DiskFormat.RAW,
        direct=storage.direct,
        aio=storage.aio if machine.virtio else "threads",
    )
    own = [
        dataclasses.replace(disk, file=os.fspath(places.root))
        for disk in machine.disks
        if disk.base
    ]
    return dataclasses.replace(
        machine,
        image=dataclasses.replace(machine.image, initrd=os.fspath(places.initrd)),
        disks=(*own, carrier),
        seed="",
        cdroms=(),
        forwards=(),
        mounts=(),
        display=Display.NONE,
        tpm=False,
        vsock=False,
        console_log=os.fspath(places.console),
        autostart=False,
    )


def write(machine: Machine, places: Places) -> str:
    """Return the domain's XML."""
    out = domain_xml.write(machine)
    devices = out.root.find("devices")
    assert devices is not None
    _add_port(out, devices, places.answer)
    return out.text()


def _add_port(out: Writer, devices: ET.Element, answer: pathlib.Path) -> None:
    port = out.add(devices, "serial", type_="file", why=_WHY)
    out.add(port, "source", path=os.fspath(answer), append="on")
    out.add(port, "target", type_="isa-serial", port="1")


def objection(machine: Machine, proof: Mapping[str, Any], facts: Mapping[str, str]) -> str:
    """Return why a run is void: what executed the guest is not what was asked for; else nothing.

    Three witnesses: libvirt's live XML, QEMU itself (query-kvm), and the guest's CPUID.
    """
    wanted = machine.accel
    if proof.get("domain_type") != wanted.domain_type:
        return (
            f"asked for accel '{wanted}', and the live XML says type '{proof.get('domain_type')}'"
        )
    if proof.get("query_kvm") is not (wanted is Accel.KVM):
        said = "enabled" if proof.get("query_kvm") else "not enabled"
        return f"asked for accel '{wanted}', and QEMU says that KVM is {said}"
    translated = facts.get("hypervisor", "").startswith("TCG")
    if translated and wanted is Accel.KVM:
        return f"asked for accel '{wanted}', and the guest sees the signature of TCG"
    return ""


def proof(live_xml: str, *, kvm_enabled: bool) -> dict[str, Any]:
    """Return what libvirt and QEMU say of a running domain."""
    root = ET.fromstring(live_xml)  # noqa: S314  (libvirt's own output)
    kind = root.find("os/type")
    return {
        "domain_type": root.get("type", ""),
        "query_kvm": kvm_enabled,
        "machine_type": kind.get("machine", "") if kind is not None else "",
        "emulator": root.findtext("devices/emulator") or "",
    }
