"""Makes a new machine of a backup. The backup is only read, and looked at before it is trusted."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import stat
from collections.abc import Callable, Iterator

from vmctl import errors
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor import domains
from vmctl.images import copies
from vmctl.lifecycle import (
    backup,
    backup_verify,
    execute,
    first_boot,
    identity,
    schedule,
    steps,
    taking,
)
from vmctl.lifecycle.events import Event, Note
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine.model import Machine
from vmctl.machine.observed import Observed
from vmctl.machine.xml import domain as domain_xml
from vmctl.store import backups as shelves
from vmctl.store import files, inside, records
from vmctl.store.backups import Backup, Shelf
from vmctl.store.layout import Layout


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which backup of which machine becomes the machine `new`."""

    name: str
    backup: str
    new: str
    uri: str | None = None
    to: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """A backup, and the machine that is made of it."""

    shelf: Shelf
    chain: list[Backup]
    machine: Machine

    @property
    def backup(self) -> Backup:
        return self.chain[0]


def restore(request: Request) -> Iterator[Event]:
    """Make a machine with the disks of a backup; it is not started.

    Name, UUID, MAC addresses, ssh keys and cloud-init's seed are its own; forwarded ports are not
    taken over. The disks show what they showed at the backup, byte for byte, which is compared.
    """
    layout = Layout.default()
    shelf = shelves.shelf(layout, request.to, request.name)
    shelves.chain(shelf, shelves.resolved(shelf, request.backup))
    with connections.opened(request.uri, layout) as connection:
        site = Site(connection, layout)

        def work(name: str, worker: Worker) -> None:
            with backup.hold(layout, shelf), execute.locked(site, name) as there:
                _refuse_taken(site, there)
                found = shelves.chain(shelf, shelves.resolved(shelf, request.backup))
                source = domain_xml.read(found[0].xml).machine
                machine = identity.of_its_own(source, name, site.layout.machine(name))
                way = _Way(shelf=shelf, chain=found, machine=machine)
                _require_own(way)
                _require_images(way)
                for each in reversed(found):
                    backup_verify.verify(shelf, each, worker)
                _make(site, way, worker)

        yield from schedule.carry_out([request.new], {}, work)
        yield Note(
            machine=request.new,
            level="info",
            text=f"made of a backup of '{request.name}'; forwarded ports were not taken over",
            hint=f"Start it: vmctl start {request.new}",
        )


def _refuse_taken(site: Site, observed: Observed) -> None:
    """Raise ConflictError for a name that is taken; clear what a killed restore left of it."""
    name = observed.name
    place = site.layout.machine(name)
    if observed.exists or records.read(place) is not None:
        raise errors.ConflictError(
            f"There is a machine '{name}' already.", hint="Choose another name."
        )
    if records.intent(place).get("backup"):
        steps.remove_files(site, name, kept=frozenset())
    with contextlib.suppress(FileNotFoundError):
        if os.listdir(place.directory):
            raise errors.ConflictError(
                f"'{place.directory}' holds files of an earlier machine '{name}'.",
                hint=f"See what they are: vmctl gc; remove them: vmctl down {name}",
            )


def _require_own(way: _Way) -> None:
    """Raise RefusedError where others can write what the machine will be: mounts, for one."""
    place = way.shelf.place(way.backup.name)
    for path in (way.shelf.directory, place.directory, place.manifest):
        status = path.stat(follow_symlinks=False)
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise errors.RefusedError(
                f"Others may write to '{path}', which says what machine is to be made.",
                hint="If you trust it, make it yours: "
                f"chown -R $(id -u) '{way.shelf.directory}'; chmod -R go-w '{way.shelf.directory}'",
            )


def _require_images(way: _Way) -> None:
    """Raise NotFoundError where an image is gone that the machine needs below its disks."""
    machine = way.machine
    wanted = [disk.base for disk in machine.disks if disk.base]
    if machine.image is not None:
        wanted += [path for path in (machine.image.kernel, machine.image.initrd) if path]
    for path in wanted:
        if not os.path.exists(path):
            name = machine.image.name if machine.image else path
            top = way.shelf.place(way.backup.name).file(way.backup.disks[0].file)
            raise errors.NotFoundError(
                f"Backup '{way.backup.name}' of machine '{way.shelf.machine}' needs the image "
                f"'{name}' ('{path}'), which is not in the store any more.",
                hint="The backup holds the whole disks: take one out with qemu-img convert -O "
                f"qcow2 '{top}' DISK.qcow2, and name it in a spec (image: path).",
            )


def _make(site: Site, way: _Way, worker: Worker) -> None:
    place, machine = site.layout.machine(way.machine.name), way.machine
    records.begin(
        place,
        "up",
        digest=machine.digest,
        keep=[],
        networks=steps.network_names(machine),
        image_digest=steps.image_digest(machine),
        backup=way.backup.name,
    )
    try:
        if machine.image is not None and machine.image.present:
            steps.require_image(site, machine)
        _disks(way, worker)
        with worker.step("define"):
            _define(site, way)
            records.finish(place)
    except BaseException:
        # It never ran: nothing of the user's is lost with it.
        with contextlib.suppress(errors.VmctlError, OSError):
            domain = domains.find(site.connection, machine.name)
            if domain is not None:
                domains.undefine(domain)
            steps.remove_files(site, machine.name, kept=frozenset())
        raise


def _disks(way: _Way, worker: Worker) -> None:
    """Make the disks, and compare them with what they were made of."""
    top = way.shelf.place(way.backup.name)
    by_name = {copy.name: copy for copy in way.backup.disks}
    for disk in way.machine.disks:
        copy = by_name.get(disk.name)
        if copy is None:
            raise errors.RefusedError(
                f"Backup '{way.backup.name}' says nothing of disk '{disk.name}'.",
                hint=f"Use another backup: vmctl backup list {way.shelf.machine}",
            )
        source, target = str(top.file(copy.file)), pathlib.Path(disk.file)
        draft = files.temporary(target)
        with worker.step(f"copy {disk.name}", patient=True) as progress:
            told = _telling(progress)
            copies.onto(source, copy.size, disk.base, disk.base_format, draft, told)
        with worker.step(f"compare {disk.name}", patient=True) as progress:
            copies.require_same(source, str(draft), _telling(progress))
        files.publish(draft, target)
        taking.give_to_qemu(target, way.machine)


def _telling(progress: Callable[..., None]) -> copies.Told:
    return lambda done, total: progress(done=done, total=total)


def _define(site: Site, way: _Way) -> None:
    machine, kept = way.machine, way.backup.kept
    place = site.layout.machine(machine.name)
    if "payload" in kept:
        files.write(place.payload, kept["payload"].encode("utf-8", "surrogateescape"))
    if way.backup.nvram and machine.nvram:
        files.write(place.nvram, way.shelf.place(way.backup.name).nvram.read_bytes())
        taking.give_to_qemu(place.nvram, machine)
    steps.ensure_networks(site, machine)
    spec = kept.get("spec", "").encode("utf-8", "surrogateescape")
    steps.write_files(site, machine, spec)
    known = inside.parse(kept.get("inside", ""))
    inside.write(place, dataclasses.replace(known, mounted="", run="", console=0))
    steps.define(site, machine)
    domain = domains.get(site.connection, machine.name)
    steps.remember(site, machine, "", domain.UUIDString(), running=False)
    made = records.read(place)
    if made is not None:
        why, login = (str(way.backup.record.get(key, "")) for key in ("why", "login"))
        records.write(place, dataclasses.replace(made, why=why, login=login))
    first_boot.prepare(site.layout, machine)
