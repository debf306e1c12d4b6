"""The steps of a plan, each one side effect."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import secrets
import socket
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import console_log
from vmctl.hypervisor import domains, monitor, networks
from vmctl.hypervisor.connection import Connection
from vmctl.images import chain, qcow2
from vmctl.lifecycle import first_boot, ssh_port
from vmctl.machine.model import Disk, DiskFormat, Display, Forward, Image, Machine, NicKind
from vmctl.machine.state import State
from vmctl.machine.xml import device, places
from vmctl.machine.xml import domain as domain_xml
from vmctl.machine.xml import network as network_xml
from vmctl.store import files, locks, records
from vmctl.store.layout import Layout
from vmctl.store.records import Record

if TYPE_CHECKING:
    from vmctl.spec.model import ImageSpec

_BUILD_SECONDS = 1800.0
_DISK_SECONDS = 120.0
_NETWORK_SECONDS = 60.0
_VNC_PASSWORD_LENGTH = 8
"""The VNC protocol uses no more characters."""


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """Where steps are carried out."""

    connection: Connection
    layout: Layout


def build_image(site: Site, wanted: ImageSpec, progress: Callable[..., None]) -> Image:
    """Build or pull an image that is not in the store yet, or copy the user's own into it."""
    # Needed once in a machine's life, and dear to import.
    from vmctl.images import build, local, pull

    def told(what: str, done: int, total: int) -> None:
        progress(what, done, total)

    deadline = Deadline.after(_BUILD_SECONDS)
    if wanted.format is None:
        return build.ensure(site.layout, wanted.name, deadline, told)
    format_ = DiskFormat(wanted.format.value)
    if wanted.url:
        return pull.ensure_address(site.layout, wanted.url, wanted.sha256, format_, told)
    return local.ensure(site.layout, wanted.path, format_, deadline, told)


def is_pulled(name: str) -> bool:
    """Tell whether the image of this name is pulled, by its recipe; not so for no name."""
    from vmctl.images import recipes

    return bool(name) and recipes.read(name).builder.value == "pull"


def remarks(site: Site, name: str) -> tuple[str, str]:
    """Return what is worth saying of a pulled image, and what to do about it; else nothing."""
    from vmctl.images import pull

    return pull.remarks(site.layout, name)


def image_digest(machine: Machine) -> str:
    """Return which image a machine is made on; empty for none."""
    return machine.image.digest if machine.image else ""


def require_image(site: Site, machine: Machine) -> None:
    """Raise ConflictError where the image was removed since it was looked up.

    To be asked when the intent with the image's digest is written: whoever removes an image looks
    at the intents after he took it away (see `image_removal`).
    """
    digest = image_digest(machine)
    if machine.image is not None and not site.layout.image(digest).is_dir():
        raise errors.ConflictError(
            f"The image '{machine.image.name}' was removed while machine '{machine.name}' was "
            "being made.",
            hint="Run the same command again.",
        )


def ensure_networks(site: Site, machine: Machine) -> None:
    """Define and start the networks of vmctl's own that the machine's cards need."""
    for kind in (NicKind.NAT, NicKind.ISOLATED):
        if any(nic.kind is kind for nic in machine.nics):
            with network_lock(site, network_xml.NAMES[kind]):
                networks.ensure(site.connection, kind)
    for nic in machine.nics:
        if nic.address:
            networks.reserve(site.connection, nic, machine.name)


def network_lock(site: Site, name: str) -> contextlib.AbstractContextManager[None]:
    """Hold a network's lock: it is made and removed by one vmctl at a time."""
    lock = site.layout.lock("network", name)
    return locks.hold(lock, Deadline.after(_NETWORK_SECONDS), f"Network '{name}'")


def network_names(machine: Machine) -> tuple[str, ...]:
    """Return the networks of vmctl's own that a machine wants."""
    return tuple(sorted({nic.network for nic in machine.nics if nic.network}))


def write_files(site: Site, machine: Machine, spec: bytes) -> None:
    """Make the machine's directory with what must be there before libvirt looks."""
    place = site.layout.machine(machine.name)
    files.make_directory(place.directory)
    files.write(place.spec, spec)
    # An existing log keeps its owner: libvirt's logger runs as root and appends.
    descriptor = os.open(
        place.console_log, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, files.PRIVATE
    )
    os.close(descriptor)
    first_boot.prepare(site.layout, machine)
    if machine.display is Display.VNC and not place.vnc_password.exists():
        password = secrets.token_urlsafe(_VNC_PASSWORD_LENGTH)[:_VNC_PASSWORD_LENGTH]
        files.write(place.vnc_password, password.encode())


def make_disks(
    site: Site, machine: Machine, *, running: bool, in_use: Collection[str] = ()
) -> None:
    """Make the disks that are not there yet; one that is there must fit, or grows.

    `in_use` names those that a `running` machine has; they are not touched. Raises ConflictError
    for a file that is no disk of this machine, and for an image that has too many files below it
    already.
    """
    deadline = Deadline.after(_DISK_SECONDS)
    for disk in machine.disks:
        path = pathlib.Path(disk.file)
        if disk.external or (running and disk.name in in_use):
            continue
        if path.exists():
            _fit(machine, disk, deadline)
        elif disk.base:
            chain.refuse_long(pathlib.Path(disk.base), site.layout.home, disk.base_format)
            qcow2.create_overlay(path, disk.base, disk.base_format, disk.size, deadline)
        else:
            qcow2.create_blank(path, disk.size, deadline)
        if machine.qemu_owner:
            uid, gid = (int(part) for part in machine.qemu_owner.replace("+", "").split(":"))
            os.chown(path, uid, gid, follow_symlinks=False)


def _fit(machine: Machine, disk: Disk, deadline: Deadline) -> None:
    """Let a disk grow; refuse a leftover on another base, whose content would make no sense."""
    path = pathlib.Path(disk.file)
    found = qcow2.info(path, disk.format, deadline)
    if found.backing == disk.base and found.virtual_size < disk.size:
        qcow2.grow(path, disk.size, deadline)
    elif found.backing != disk.base or found.virtual_size > qcow2.whole_sectors(disk.size):
        raise errors.ConflictError(
            f"The file '{disk.file}' is there already and is not disk '{disk.name}' of this "
            f"spec: it has {found.virtual_size} bytes on base '{found.backing or 'none'}'.",
            hint=f"Remove what is left of the machine: vmctl down {machine.name}",
        )


def define(site: Site, machine: Machine, *, uuid: str = "", machine_type: str = "") -> None:
    """Define the domain; an existing one keeps its UUID and machine type."""
    place = site.layout.machine(machine.name)
    password = ""
    if machine.display is Display.VNC:
        password = place.vnc_password.read_text()
    record = records.read(place)
    if record is not None and record.adopted:
        machine = dataclasses.replace(machine, adopted=True)
    written = domain_xml.write(
        machine,
        uuid=uuid,
        machine_type=machine_type,
        vnc_password=password,
        ssh_key=first_boot.kernel_key(place) if machine.user else "",
    )
    if machine.adopted:
        places.keep(written, domains.inactive_xml(site.connection, machine.name))
    domains.define(site.connection, written.text(), autostart=machine.autostart)


def remember(
    site: Site,
    machine: Machine,
    spec: str,
    uuid: str,
    *,
    running: bool,
    kept: Collection[str] = (),
) -> None:
    """Keep in the store what `ps` shows of the machine; `uuid` is its domain's.

    `kept` names disks that the machine had and that outlive it.
    """
    place = site.layout.machine(machine.name)
    before = records.read(place)
    record = Record(
        name=machine.name,
        project=machine.project,
        uuid=uuid,
        uri=site.connection.uri,
        mode=machine.mode.value,
        why=machine.why,
        image=machine.image.name if machine.image else "",
        image_digest=image_digest(machine),
        login=machine.image.login if machine.image else "",
        cpus=machine.cpus,
        memory=machine.memory,
        digest=machine.digest,
        spec=spec,
        networks=network_names(machine),
        user=machine.user,
    )
    if before is not None:
        record = dataclasses.replace(
            record,
            boot_id=before.boot_id,
            boot_offset=before.boot_offset,
            ready=before.ready,
            ssh_port=before.ssh_port,
            seed=before.seed,
            adopted=before.adopted,
            kept=tuple(sorted({*before.kept, *kept} - {disk.name for disk in machine.disks})),
        )
    if before is not None and running:
        # Until the next start these are what runs.
        record = dataclasses.replace(
            record, mode=before.mode, cpus=before.cpus, memory=before.memory
        )
    records.write(place, record)


def start(site: Site, machine: Machine) -> None:
    """Start a machine, as it is defined, and remember where its console output begins."""
    place = site.layout.machine(machine.name)
    first_boot.before_start(site.layout, machine)
    domain = domains.get(site.connection, machine.name)
    if domains.state(domain)[0] is State.SAVED:
        from vmctl.lifecycle import save

        save.go_on(site, machine.name)
        return
    offset = console_log.size(place.console_log)
    record = records.read(place)
    if record is None:
        domains.start(domain)
        return
    # Written before and after: a kill in between must not lead to an older run's output.
    begun = dataclasses.replace(
        record,
        boot_id=-1,
        boot_offset=offset,
        ready=False,
        mode=machine.mode.value,
        cpus=machine.cpus,
        memory=machine.memory,
    )
    records.write(place, begun)
    domains.start(domain)
    records.write(place, dataclasses.replace(begun, boot_id=domain.ID()))


def resume(site: Site, name: str) -> None:
    """Let a paused machine go on."""
    domains.resume(domains.get(site.connection, name))


def forward(site: Site, machine: Machine) -> None:
    """Make QEMU's forwarded ports those of the machine, and one that leads to its ssh server."""
    domain = domains.get(site.connection, machine.name)
    card = device.Live(domains.live_xml(site.connection, machine.name)).user_card
    if not card:
        return
    netdev = f"host{card}"
    place = site.layout.machine(machine.name)
    there = monitor.forwards(domain)
    wanted = set(machine.forwards)
    own = ssh_port.present(place, there) if ssh_port.wanted(machine, netdev) else None
    for extra in there - wanted - {own}:
        monitor.remove_forward(domain, netdev, extra)
    for missing in sorted(wanted - there, key=lambda item: item.host):
        monitor.add_forward(domain, netdev, missing)
    if own is None and ssh_port.wanted(machine, netdev):
        ssh_port.add(site.connection, netdev, machine, place)


def refuse_taken_ports(machine: Machine) -> None:
    """Raise ConflictError for a port of the host that somebody else has, before all else."""
    for wanted in machine.forwards:
        if _taken(wanted):
            raise errors.ConflictError(
                f"Machine '{machine.name}' wants port {wanted.host} of {wanted.host_address} "
                f"({wanted.protocol}), and another program has it.",
                hint=f"See who: ss -lntup 'sport = :{wanted.host}'; or forward another port.",
            )


def _taken(wanted: Forward) -> bool:
    kind = socket.SOCK_STREAM if wanted.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as trial:
        # As QEMU does: a port in TIME_WAIT is free.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((wanted.host_address, wanted.host))
        except OSError:
            return True
    return False


def remove_files(site: Site, name: str, *, kept: frozenset[str]) -> None:
    """Remove what the store has of a machine, but the disks that are kept.

    The intent goes last: until then the same command goes on where it was.
    """
    place = site.layout.machine(name)
    last = {place.intent.name}
    spared = {place.disk(disk).name for disk in kept}
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(place.directory.iterdir()):
            if entry.name not in spared | last:
                entry.unlink()
        files.remove(place.intent)
        with contextlib.suppress(OSError):
            place.directory.rmdir()
