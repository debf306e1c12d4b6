"""A whole domain: the same elements written and read."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET

from vmctl import errors
from vmctl.machine.model import Accel, Devices, Machine, Mode, Ready
from vmctl.machine.xml import (
    balloon,
    boot,
    capacity,
    clock,
    console,
    controller,
    cpu,
    disk,
    display,
    entropy,
    features,
    filesystem,
    interface,
    limits,
    metadata,
    ownership,
    panic,
    power,
    structure,
    tpm,
    vsock,
)
from vmctl.machine.xml.element import Writer


def write(
    machine: Machine,
    *,
    uuid: str = "",
    machine_type: str = "",
    vnc_password: str = "",
    ssh_key: str = "",
) -> Writer:
    """Return the domain of a machine.

    `uuid` and `machine_type` are those of the existing domain: libvirt froze them at the first
    define, and a machine keeps its hardware when QEMU is upgraded. `ssh_key` is the public key for
    a guest without cloud-init, in base64.
    """
    out = Writer("domain", type=machine.accel.domain_type)
    out.reasons[out.root] = f"mode {machine.mode}: {machine.accel}"
    out.add(out.root, "name", text=machine.name, why="spec name")
    out.add(out.root, "uuid", text=uuid or machine.uuid, why="vmctl: made once, then kept")
    out.add(out.root, "description", text=machine.description, why="spec description")
    if not machine.description:
        out.root.remove(out.root[-1])
    metadata.write(machine, out)
    capacity.write(machine, out)
    limits.write(machine.limits, out)
    filesystem.write_memory(machine, out)
    boot.write(machine, out, machine_type, ssh_key)
    features.write(machine, out)
    cpu.write(machine, out)
    clock.write(machine, out)
    power.write(out)
    devices = out.add(out.root, "devices")
    out.add(devices, "emulator", text=machine.emulator)
    disk.write(machine, out, devices)
    controller.write(machine, out, devices)
    filesystem.write(machine, out, devices)
    interface.write(machine, out, devices)
    console.write(machine, out, devices)
    tpm.write(machine, out, devices)
    display.write(machine, out, devices, vnc_password)
    balloon.write(machine, out, devices)
    entropy.write(machine, out, devices)
    panic.write(machine, out, devices)
    vsock.write(machine, out, devices)
    ownership.write(machine, out)
    return out


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadBack:
    """A domain as it is: the machine, and what cannot be said as a machine.

    `owned` is false for a domain without our metadata. `digest` is that of the machine it was made
    from; in a running domain, `applied` is that of the machine up to which it was changed, and
    `spare_ports` how many devices can be plugged in. `unknown` are elements that vmctl does not
    manage, `missing` those it would have written.
    """

    machine: Machine
    owned: bool
    digest: str
    machine_type: str
    unknown: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    applied: str = ""
    spare_ports: int = 0


def read(text: str, *, autostart: bool = False) -> ReadBack:
    """Read a domain's inactive XML.

    Raises HypervisorError where it is no domain. Elements of foreign domains that have no meaning
    here end up in `unknown`.
    """
    try:
        root = ET.fromstring(text)  # noqa: S314  (libvirt's own output; its parser refuses entities)
    except ET.ParseError as problem:
        raise errors.HypervisorError(f"Libvirt gave XML that cannot be read: {problem}.") from None
    own = metadata.read(root)
    machine = _machine(root, own, autostart=autostart)
    _, machine_type = boot.read_machine_type(root)
    expected = write(machine, machine_type=machine_type, ssh_key=boot.read_ssh_key(root))
    missing, unknown = structure.compare(expected.root, root)
    if machine.adopted:
        # What others left out is no more managed than what they put in.
        missing, unknown = (), structure.unmanaged(expected.root, root)
    return ReadBack(
        machine=machine,
        owned=own is not None,
        digest=own.digest if own else "",
        machine_type=machine_type,
        unknown=unknown,
        missing=missing,
        applied=own.applied if own else "",
        spare_ports=controller.read_spare(root),
    )


def _machine(root: ET.Element, own: metadata.Metadata | None, *, autostart: bool) -> Machine:
    name = root.findtext("name") or ""
    accel = Accel.KVM if root.get("type") == "kvm" else Accel.TCG
    devices = Devices.VIRTIO if balloon.read_virtio(root) else Devices.EMULATED
    if own is not None and own.adopted and own.mode in list(Mode):
        # Others give a balloon to machines with emulated devices too.
        devices = Mode(own.mode).devices
    memory, memory_max, cpus, cpus_max = capacity.read(root)
    chipset, _ = boot.read_machine_type(root)
    disks, cdroms = disk.read(root, own)
    given = own.guest if own is not None else {}
    return Machine(
        name=name,
        project=own.project if own else "",
        uuid=root.findtext("uuid") or "",
        mode=Mode.of(accel, devices),
        chipset=chipset,
        cpus=cpus,
        cpus_max=cpus_max,
        memory=memory,
        memory_max=memory_max,
        ready=own.ready if own else Ready(),
        console_log=_console_log(root, own),
        description=root.findtext("description") or "",
        nested=cpu.read_nested(root),
        firmware=boot.read_firmware(root),
        tpm=tpm.read(root),
        nvram=root.findtext("os/nvram") or "",
        image=boot.read_image(root, own.image if own else None, disks),
        disks=disks,
        cdroms=cdroms,
        boot_order=disk.read_boot_order(root, disks),
        nics=interface.read(root, own),
        forwards=own.forwards if own else (),
        mounts=filesystem.read(root, own),
        seed=disk.read_seed(root),
        hostname=given.get("hostname", ""),
        user=given.get("user", ""),
        ssh_keys=given.get("ssh_keys", ""),
        cloud_init=given.get("cloud_init", ""),
        user_data=given.get("user_data", ""),
        provision=given.get("provision", ""),
        display=display.read(root),
        autostart=autostart,
        needs=own.needs if own else (),
        limits=limits.read(root, own),
        vsock=vsock.read(root),
        host_cpu=own.host_cpu if own else "",
        emulator=root.findtext("devices/emulator") or "",
        qemu_owner=ownership.read(root),
        adopted=own is not None and bool(own.adopted),
    )


def _console_log(root: ET.Element, own: metadata.Metadata | None) -> str:
    """Return where the console is logged to, or would be if others had not made the domain."""
    if own is not None and own.adopted:
        return f"{own.adopted}/console.log"
    return console.read_log(root)
