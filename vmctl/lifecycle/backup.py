"""Makes backups of machines: whole, or what changed since the last one.

A running guest goes on meanwhile: libvirt's backup job copies what was there at its beginning, and
a checkpoint records what is written from then on. A stopped machine's disks are compared with the
last backup instead. What is being made lies beside the finished ones under a temporary name, and
an intent stands in the store until it is whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence

from vmctl import errors, sizes
from vmctl.deadline import Deadline
from vmctl.hypervisor import backups as jobs
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor import domains, live
from vmctl.hypervisor import snapshots as monitor
from vmctl.hypervisor.backups import ChangesLostError
from vmctl.images import copies, internal
from vmctl.lifecycle import (
    backup_marks,
    execute,
    observe,
    schedule,
    settle,
    snapshots,
    taking,
)
from vmctl.lifecycle.events import Event
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine import backups as rules
from vmctl.machine.backups import Decision
from vmctl.machine.model import Machine
from vmctl.machine.observed import Observed
from vmctl.machine.state import State
from vmctl.machine.xml import backup as orders
from vmctl.store import backups as shelves
from vmctl.store import files, locks, records
from vmctl.store.backups import Backup, Copy, Kind, Shelf
from vmctl.store.layout import Layout

_SECONDS = 120.0
_LOOK = 0.05
_BLOCK = 512
_MARGIN = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Machines to back up; `to` is a directory of the user's own, None means the store's."""

    names: Sequence[str]
    uri: str | None = None
    to: pathlib.Path | None = None
    full: bool = False
    comment: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """One machine that is backed up, and where its backups lie."""

    site: Site
    observed: Observed
    machine: Machine
    shelf: Shelf
    comment: str

    @property
    def name(self) -> str:
        return self.observed.name

    @property
    def active(self) -> bool:
        return self.observed.state.active


def create(request: Request) -> Iterator[Event]:
    """Back machines up, each at a moment of its own; all that can be refused is refused before."""
    layout = Layout.default()
    with connections.opened(request.uri, layout) as connection:
        site = Site(connection, layout)
        for name in request.names:
            observed = snapshots.require(observe.observe(connection, layout, name))
            rules.refuse(taking.machine_of(observed), observed.state)
            _refuse_ordinary_user(site, observed)

        def work(name: str, worker: Worker) -> None:
            shelf = shelves.shelf(layout, request.to, name)
            with hold(layout, shelf), execute.locked(site, name) as observed:
                _create(_subject(site, observed, request), request, worker)

        yield from schedule.carry_out(list(request.names), {}, work)


@contextlib.contextmanager
def hold(layout: Layout, shelf: Shelf) -> Iterator[None]:
    """Hold the backups of a machine for a block, with what killed commands left put right.

    Raises ConflictError where another vmctl works on them.
    """
    what = f"The shelf of backups of machine '{shelf.machine}'"
    with locks.hold(layout.lock("backup", shelf.machine), None, what):
        shelves.clear(shelf)
        yield


def _refuse_ordinary_user(site: Site, observed: Observed) -> None:
    machine = taking.machine_of(observed)
    if os.geteuid() != 0 and not site.connection.session and not machine.qemu_owner:
        raise errors.HostError(
            f"The copies of the disks of machine '{observed.name}' would belong to QEMU's own "
            "account, and you could not read them.",
            hint=f"Run it as root: sudo vmctl backup create {observed.name}",
        )


def _subject(site: Site, observed: Observed, request: Request) -> _Subject:
    snapshots.require(observed)
    observed = settle.settle(site, observed)
    if observed.intent:
        raise errors.ConflictError(
            f"'{observed.intent}' of machine '{observed.name}' was interrupted and is not "
            "finished.",
            hint=f"Finish it: run that command again. See: vmctl status {observed.name}",
        )
    machine = taking.machine_of(observed)
    rules.refuse(machine, observed.state)
    shelf = shelves.shelf(site.layout, request.to, observed.name)
    if request.to is not None and not request.to.is_dir():
        raise errors.NotFoundError(
            f"There is no directory '{request.to}' for backups.",
            hint=f"Make it: mkdir -m 0711 '{request.to}'",
        )
    files.make_directory(shelf.directory)
    if machine.qemu_owner:
        _require_reachable(shelf.directory)
    return _Subject(
        site=site, observed=observed, machine=machine, shelf=shelf, comment=request.comment
    )


def _require_reachable(directory: pathlib.Path) -> None:
    """Raise HostError where QEMU's own account cannot enter a directory."""
    for path in (directory, *directory.parents):
        if not path.stat().st_mode & stat.S_IXOTH:
            raise errors.HostError(
                f"QEMU runs under its own account and cannot enter '{path}', where the backup is "
                "to lie.",
                hint=f"Let it pass: chmod o+x '{path}' - or choose another directory.",
            )


def _create(subject: _Subject, request: Request, worker: Worker) -> None:
    decision = _decide(subject, request)
    _tell(decision, worker)
    try:
        made = _make(subject, decision, worker)
    except ChangesLostError:
        decision = Decision(Kind.FULL, why="libvirt lost what was written since the last backup")
        _tell(decision, worker)
        made = _make(subject, decision, worker)
    worker.note(
        "info",
        f"backup '{made.name}' ({made.kind}, {sizes.said(made.bytes)}): "
        f"{subject.shelf.place(made.name).directory}",
    )
    if subject.active:
        _forget_older(subject, made)


def _decide(subject: _Subject, request: Request) -> Decision:
    assert subject.observed.current is not None
    known = set[str]()
    if subject.active:
        known = jobs.usable(domains.get(subject.site.connection, subject.name))
    return rules.decide(
        subject.machine,
        _whole(subject.shelf),
        uuid=subject.observed.current.machine.uuid,
        active=subject.active,
        checkpoints=known,
        full=request.full,
    )


def _whole(shelf: Shelf) -> list[Backup]:
    """Return the backups whose files are there, the oldest first; none is read to its end."""
    return [
        backup
        for backup in shelves.readable(shelf)
        if all(
            _size(shelf.place(backup.name).file(copy.file)) == copy.bytes for copy in backup.disks
        )
    ]


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _tell(decision: Decision, worker: Worker) -> None:
    if decision.why:
        worker.note("warning", f"a full backup is made: {decision.why}")


def _make(subject: _Subject, decision: Decision, worker: Worker) -> Backup:
    """Make one backup, or leave nothing of it."""
    site, shelf = subject.site, subject.shelf
    name = shelves.new_name(shelf, time.time())
    final = shelf.place(name).directory
    draft = shelves.Place(files.temporary(final))
    checkpoint = f"{_ours(shelf)}{name}-{secrets.token_hex(2)}" if subject.active else ""
    _require_room(subject, decision)
    if subject.active:
        jobs.require_none(domains.get(site.connection, subject.name))
    place = site.layout.machine(subject.name)
    records.begin(
        place,
        settle.BACKUP,
        draft=str(draft.directory),
        final=str(final),
        checkpoint=checkpoint,
        thaw=subject.observed.state is State.RUNNING,
    )
    try:
        files.make_directory(draft.directory)
        backup = _described(subject, decision, name, checkpoint)
        backup = _nvram(subject, draft, backup)
        if subject.active:
            backup = _copy_live(subject, decision, draft, backup, worker)
        else:
            _copy_stopped(subject, decision, draft, worker)
        with worker.step("digests", patient=True) as progress:
            backup = _finished(subject, draft, backup, lambda d, t: progress(done=d, total=t))
        shelves.write(draft, backup)
        files.publish(draft.directory, final)
    except BaseException:
        # Where that fails the intent stays, and the next command tries again.
        with contextlib.suppress(errors.VmctlError):
            backup_marks.undo(site, subject.name, subject.machine)
        raise
    records.finish(place)
    return backup


def _require_room(subject: _Subject, decision: Decision) -> None:
    """Raise HostError where a full backup would not fit; an incremental one is seen to."""
    if decision.kind is not Kind.FULL:
        return
    needed = _MARGIN
    for disk in subject.machine.disks:
        taken = sum(_taken(path) for path in (disk.file, disk.base) if path)
        needed += min(taken, disk.size or taken)
    room = os.statvfs(subject.shelf.directory)
    free = room.f_bavail * room.f_frsize
    if needed > free:
        raise errors.HostError(
            f"A full backup of '{subject.name}' may take {sizes.said(needed)}, and "
            f"'{subject.shelf.directory}' has {sizes.said(free)} left.",
            hint="Free some disk space, or put it elsewhere: vmctl backup create --to DIRECTORY",
        )


def _taken(path: str) -> int:
    try:
        return os.stat(path).st_blocks * _BLOCK
    except OSError:
        return 0


def _described(subject: _Subject, decision: Decision, name: str, checkpoint: str) -> Backup:
    """Return what is known of a backup before it is made."""
    detail = taking.detail(subject.site, subject.observed)
    assert subject.observed.current is not None
    return Backup(
        name=name,
        machine=subject.name,
        uuid=subject.observed.current.machine.uuid,
        kind=decision.kind,
        parent=decision.parent,
        created=time.time(),
        running=subject.observed.state is State.RUNNING,
        checkpoint=checkpoint,
        comment=subject.comment,
        xml=detail.xml,
        record=detail.record,
        kept=detail.files,
    )


def _nvram(subject: _Subject, draft: shelves.Place, backup: Backup) -> Backup:
    """Take the UEFI variables along."""
    if not subject.machine.nvram:
        return backup
    path = pathlib.Path(subject.machine.nvram)
    if not path.exists():
        return backup
    files.write(draft.nvram, path.read_bytes())
    return dataclasses.replace(backup, nvram=copies.digest(draft.nvram))


def file_of(disk: str) -> str:
    """Return the name of a disk's copy."""
    return f"{disk}.qcow2"


def _copy_live(
    subject: _Subject, decision: Decision, draft: shelves.Place, backup: Backup, worker: Worker
) -> Backup:
    """Have libvirt copy the disks of a guest that goes on; returns what is known by then."""
    connection = subject.site.connection
    domain = domains.get(connection, subject.name)
    every = orders.targets(domains.live_xml(connection, subject.name))
    where = {}
    for disk in subject.machine.disks:
        if disk.file not in every:
            raise errors.ConflictError(
                f"Disk '{disk.name}' of machine '{subject.name}' is not the file '{disk.file}' any "
                "more: other hands changed it.",
                hint=f"See what it is: virsh domblklist {subject.name}",
            )
        path = draft.file(file_of(disk.name))
        size = live.capacity(domain, every[disk.file])
        copies.reserve(path, size, shelves.below(subject.shelf, decision.parent, disk.name))
        taking.give_to_qemu(path, subject.machine)
        where[disk.file] = str(path)
    with worker.step(f"backup ({decision.kind})", patient=True) as progress:
        order = orders.write(every, where, decision.since)
        checkpoint = orders.write_checkpoint(backup.checkpoint, every, where)
        with connections.CALLS.held():
            frozen = backup.running and monitor.freeze(domain)
            try:
                jobs.begin(domain, order, checkpoint)
            finally:
                if frozen:
                    monitor.thaw(domain)
        moment = time.time()
        while not (now := jobs.progress(domain)).over:
            progress(done=now.done, total=now.total)
            if worker.cancelled:
                raise errors.InterruptError("Interrupted.")
            time.sleep(_LOOK)
        jobs.require_success(domain, str(subject.shelf.directory))
    return dataclasses.replace(backup, created=moment, quiesced=frozen)


def _copy_stopped(
    subject: _Subject, decision: Decision, draft: shelves.Place, worker: Worker
) -> None:
    """Copy the disks of a machine that stands still."""
    with worker.step(f"backup ({decision.kind})", patient=True) as progress:
        for disk in subject.machine.disks:
            internal.mend(disk.file, Deadline.after(_SECONDS))
            target = draft.file(file_of(disk.name))
            told = _telling(progress, disk.name)
            if decision.parent:
                size = copies.virtual_size(disk.file)
                copies.changes(
                    disk.file,
                    size,
                    shelves.below(subject.shelf, decision.parent, disk.name),
                    target,
                    told,
                )
            else:
                copies.whole(disk.file, target, told)


def _telling(progress: Callable[..., None], disk: str) -> copies.Told:
    return lambda done, total: progress(note=disk, done=done, total=total)


def _finished(subject: _Subject, draft: shelves.Place, backup: Backup, told: copies.Told) -> Backup:
    """Make the copies ours and durable, and return the backup with their digests."""
    found = []
    for disk in subject.machine.disks:
        path = draft.file(file_of(disk.name))
        keep(path)
        found.append(
            Copy(
                name=disk.name,
                file=path.name,
                size=copies.virtual_size(str(path)),
                bytes=path.stat().st_size,
                digest=copies.digest(path, told),
            )
        )
    return dataclasses.replace(backup, disks=tuple(found))


def keep(path: pathlib.Path) -> None:
    """Make a finished copy the user's own, and durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.geteuid() == 0:
            os.fchown(descriptor, 0, 0)
        os.fchmod(descriptor, files.PRIVATE)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ours(shelf: Shelf) -> str:
    """Return how the checkpoints begin that belong to the backups of a machine in a directory."""
    return rules.checkpoints_of(os.path.abspath(shelf.directory))


def _forget_older(subject: _Subject, made: Backup) -> None:
    """Delete the checkpoints of earlier backups of this directory: the new one is counted from."""
    domain = domains.get(subject.site.connection, subject.name)
    known = set(jobs.checkpoints(domain)).union(*jobs.bitmaps(domain).values())
    mine = {name for name in known if name.startswith(_ours(subject.shelf))}
    backup_marks.forget(subject.site, subject.machine, mine - {made.checkpoint})
