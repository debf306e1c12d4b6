"""Snapshots of machines: taken at one moment for all of them, listed, deleted."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Sequence

from vmctl import errors, sizes
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor import domains
from vmctl.hypervisor import snapshots as monitor
from vmctl.lifecycle import execute, observe, removal, schedule, settle, taking
from vmctl.lifecycle.events import Event, Note
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine import snapshots
from vmctl.machine.observed import Observed
from vmctl.machine.snapshots import Decision
from vmctl.machine.state import State
from vmctl.machine.xml import domain as domain_xml
from vmctl.store import records
from vmctl.store import snapshots as trees
from vmctl.store.layout import Layout
from vmctl.store.snapshots import Kind, Snapshot

RESTORE = "restore"
UP = "up"
_DEVICE = re.compile(r"domain/devices/\w+( \(|$)")
_MARGIN = 16 << 20
"""Room (bytes) for tables and devices beside the memory itself."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Machines by name and a snapshot of theirs; `wish` is the kind asked for, if any.

    `safety` keeps what is there before a restore, `disks_only` restores no memory.
    """

    names: Sequence[str]
    snapshot: str = ""
    uri: str | None = None
    wish: Kind | None = None
    comment: str = ""
    origin: str = ""
    safety: bool = True
    disks_only: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Subject:
    """One machine of which a snapshot is taken."""

    observed: Observed
    decision: Decision

    @property
    def name(self) -> str:
        return self.observed.name

    @property
    def running(self) -> bool:
        return self.observed.state is State.RUNNING


def create(request: Request) -> Iterator[Event]:
    """Take a snapshot of machines, all of them or none, and all at the same moment.

    Several guests stand still from before the first until after the last one is taken.
    """
    layout = Layout.default()
    with connections.opened(request.uri, layout) as connection:
        yield from create_at(Site(connection, layout), request)


def create_at(site: Site, request: Request) -> Iterator[Event]:
    """Do what `create` does, where there is a connection already."""
    with contextlib.ExitStack() as stack:
        for name in request.names:
            require(observe.observe(site.connection, site.layout, name))
        subjects = []
        for name in sorted(set(request.names)):
            observed = stack.enter_context(execute.locked(site, name))
            subjects.append(prepared(site, require(observed), request))
        require_room(site, subjects)
        yield from _said(subjects)
        yield from _taken(site, subjects, request)


def take_one(site: Site, observed: Observed, request: Request, worker: Worker) -> None:
    """Take a snapshot of one machine, whose lock the caller holds."""
    subject = prepared(site, observed, request)
    require_room(site, [subject])
    for event in _said([subject]):
        assert isinstance(event, Note)
        worker.note(event.level, event.text, event.hint)
    with worker.step(f"snapshot '{request.snapshot}' ({subject.decision.kind.text})"):
        place = site.layout.machine(subject.name)
        frozen, undone = _hold(site, subject, request, alone=True), True
        try:
            taking.take(site, observed, _wanted(subject, request, frozen))
        except BaseException:
            undone = _undone(site, subject, request)
            raise
        finally:
            settle.let_go(site, subject.name, resume=subject.running, thaw=frozen)
            if undone:
                records.finish(place)


def take_by_itself(
    site: Site, observed: Observed, origin: str, keep: int, worker: Worker, *, spared: str = ""
) -> None:
    """Take a snapshot before something is done to a machine; only the last `keep` such stay.

    `origin` is the command that does it; `spared` is not deleted, however old it is.
    """
    name = own_name(site.layout, [observed.name], origin)
    take_one(site, observed, Request(names=[observed.name], snapshot=name, origin=origin), worker)
    drop_older(site, observed, origin, keep, spared=spared)


def own_name(layout: Layout, names: Sequence[str], origin: str) -> str:
    """Return a name for a snapshot that vmctl makes by itself, which no machine has yet."""
    stem, highest = f"before-{origin}-", 0
    for machine in names:
        there = trees.read(layout.machine(machine)).names
        numbers = [name.removeprefix(stem) for name in there if name.startswith(stem)]
        highest = max([highest, *(int(each) for each in numbers if each.isdecimal())])
    return f"{stem}{highest + 1}"


def drop_older(site: Site, observed: Observed, origin: str, keep: int, *, spared: str = "") -> None:
    """Delete all but the last `keep` of the snapshots that were made for `origin`."""
    there = trees.read(site.layout.machine(observed.name)).snapshots
    own = [each.name for each in there if each.origin == origin]
    for name in own[: max(0, len(own) - keep)]:
        if name != spared:
            delete_one(site, observed, name)


def require(observed: Observed) -> Observed:
    """Return a machine that snapshots can be taken of; raises NotFoundError, ConflictError."""
    removal.refuse_foreign(observed)
    if observed.current is not None and not observed.files:
        raise errors.ConflictError(
            f"The files of machine '{observed.name}' lie in another store "
            f"('{observed.current.machine.console_log}').",
            hint="Point VMCTL_HOME to that store.",
        )
    if observed.current is None:
        raise errors.NotFoundError(
            f"Machine '{observed.name}' has files but no domain.",
            hint=f"Make it again with vmctl up SPEC, or clear it with vmctl down {observed.name}.",
        )
    return observed


def prepared(site: Site, observed: Observed, request: Request) -> _Subject:
    """Refuse what cannot be done with one machine, before anything is touched."""
    name = observed.name
    place = site.layout.machine(name)
    observed = settle.settle(site, observed)
    if observed.intent:
        raise errors.ConflictError(
            f"'{observed.intent}' of machine '{name}' was interrupted and is not finished.",
            hint=f"Finish it: run that command again. See: vmctl status {name}",
        )
    decision = snapshots.decide(
        taking.machine_of(observed), observed.state, request.wish, _plugged(site, observed)
    )
    if trees.read(place).find(request.snapshot) is not None:
        raise errors.ConflictError(
            f"Machine '{name}' has a snapshot '{request.snapshot}' already.",
            hint=f"Choose another name, or delete it: vmctl snapshot delete {name} "
            f"{request.snapshot}",
        )
    found = taking.tags(site, taking.machine_of(observed), active=observed.state.active)
    for disk, tags in found.items():
        if request.snapshot in tags:
            raise errors.ConflictError(
                f"Disk '{disk}' of machine '{name}' holds a snapshot '{request.snapshot}' that "
                "vmctl did not make.",
                hint="Choose another name.",
            )
    return _Subject(observed, decision)


def _plugged(site: Site, observed: Observed) -> tuple[str, ...]:
    """Return the devices that other hands plugged into a running machine."""
    if not observed.state.active:
        return ()
    live = domain_xml.read(domains.live_xml(site.connection, observed.name))
    return tuple(path for path in live.unknown if _DEVICE.match(path))


def require_room(site: Site, subjects: Sequence[_Subject]) -> None:
    """Raise HostError where the file system could not take all the memory."""
    needed = {
        subject.name: taking.machine_of(subject.observed).memory + _MARGIN
        for subject in subjects
        if subject.decision.kind is Kind.MEMORY
    }
    if not needed:
        return
    room = os.statvfs(site.layout.machines)
    free = room.f_bavail * room.f_frsize
    if sum(needed.values()) > free:
        raise errors.HostError(
            f"The memory of {', '.join(needed)} may take {sizes.text(sum(needed.values()))}, and "
            f"'{site.layout.home}' has {sizes.text(free >> 20 << 20)} left.",
            hint="Free some disk space, delete snapshots, or keep the disks alone: --disks",
        )


def _said(subjects: Sequence[_Subject]) -> Iterator[Event]:
    for subject in subjects:
        if subject.decision.why:
            yield Note(
                machine=subject.name,
                level="warning",
                text=f"memory is not kept: {subject.decision.why}",
                hint=subject.decision.way_out,
            )


def _taken(site: Site, subjects: Sequence[_Subject], request: Request) -> Iterator[Event]:
    by_name = {subject.name: subject for subject in subjects}
    alone = len(subjects) == 1
    frozen: dict[str, bool] = {}
    unfinished: set[str] = set()

    def work(name: str, worker: Worker) -> None:
        subject = by_name[name]
        with worker.step(f"snapshot ({subject.decision.kind.text})"):
            taking.take(site, subject.observed, _wanted(subject, request, frozen.get(name, False)))

    try:
        for subject in subjects:
            frozen[subject.name] = _hold(site, subject, request, alone=alone)
        yield from schedule.carry_out(list(by_name), {}, work)
    except BaseException:
        unfinished = {each.name for each in subjects if not _undone(site, each, request)}
        raise
    finally:
        for subject in subjects:
            thaw = frozen.get(subject.name, False)
            # Where that fails the intent stays, and the next command tries again.
            with contextlib.suppress(errors.VmctlError):
                settle.let_go(site, subject.name, resume=subject.running, thaw=thaw)
                if subject.name not in unfinished:
                    records.finish(site.layout.machine(subject.name))


def _wanted(subject: _Subject, request: Request, frozen: bool) -> Snapshot:
    return Snapshot(
        name=request.snapshot,
        kind=subject.decision.kind,
        running=subject.running,
        quiesced=frozen,
        origin=request.origin,
        comment=request.comment,
    )


def _hold(site: Site, subject: _Subject, request: Request, *, alone: bool) -> bool:
    """Note what is done; hold the guest where that is needed. Tells whether it was frozen.

    A guest alone need not be held for its memory: QEMU does that by itself.
    """
    disks_only = subject.decision.kind is Kind.DISKS
    pause = subject.running and (disks_only or not alone)
    freeze = subject.running and disks_only
    place = site.layout.machine(subject.name)
    records.begin(
        place, settle.TAKE, snapshot=request.snapshot, resume=subject.running, thaw=freeze
    )
    domain = domains.get(site.connection, subject.name)
    frozen = freeze and monitor.freeze(domain)
    if pause:
        domains.pause(domain)
    return frozen


def _undone(site: Site, subject: _Subject, request: Request) -> bool:
    """Remove what there is of a snapshot that not all machines have; False where it stays.

    Then the intent stays as well, and whoever works on the machine next tries again.
    """
    place = site.layout.machine(subject.name)
    if records.intent(place).get("verb") != settle.TAKE:
        return True
    machine = taking.machine_of(subject.observed)
    active = subject.observed.state.active
    try:
        taking.forget(site, machine, request.snapshot, active=active)
    except errors.VmctlError:
        return False
    return True


def delete(request: Request) -> Iterator[Event]:
    """Delete a snapshot of machines; its children and every other one stay what they are."""
    layout = Layout.default()
    with connections.opened(request.uri, layout) as connection:
        site = Site(connection, layout)
        for name in request.names:
            require(observe.observe(connection, layout, name))
            known(layout, name, request.snapshot)

        def work(name: str, worker: Worker) -> None:
            with execute.locked(site, name) as observed, worker.step("delete snapshot"):
                delete_one(site, observed, request.snapshot)

        yield from schedule.carry_out(list(request.names), {}, work)


def delete_one(site: Site, observed: Observed, snapshot: str) -> None:
    """Delete a snapshot of one machine; the caller holds its lock."""
    place = site.layout.machine(observed.name)
    observed = settle.settle(site, observed)
    if observed.intent:
        raise errors.ConflictError(
            f"'{observed.intent}' of machine '{observed.name}' was interrupted.",
            hint="Finish it: run that command again.",
        )
    if observed.state is State.SAVED:
        raise errors.ConflictError(
            f"Machine '{observed.name}' is saved; its disks are not touched.",
            hint=f"Let it go on first: vmctl start {observed.name}",
        )
    if trees.read(place).find(snapshot) is None:
        return
    running = observed.state is State.RUNNING
    records.begin(place, settle.DELETE, snapshot=snapshot, resume=running)
    machine = taking.machine_of(observed)
    taking.forget(site, machine, snapshot, active=observed.state.active)
    records.finish(place)


def made_by_itself(names: Sequence[str], keep: int) -> dict[str, tuple[str, ...]]:
    """Return all but the last `keep` of the snapshots that vmctl made of each machine by itself."""
    layout = Layout.default()
    found = {}
    for name in names:
        there = trees.read(layout.machine(name)).snapshots
        own = tuple(each.name for each in there if each.origin)
        found[name] = own[: max(0, len(own) - keep)]
    return found


def prune(names: Sequence[str], uri: str | None, keep: int) -> Iterator[Event]:
    """Delete all but the last `keep` of the snapshots that vmctl made by itself."""
    layout = Layout.default()
    with connections.opened(uri, layout) as connection:
        site = Site(connection, layout)
        for name in names:
            require(observe.observe(connection, layout, name))

        def work(name: str, worker: Worker) -> None:
            with execute.locked(site, name) as observed:
                for snapshot in made_by_itself([name], keep)[name]:
                    with worker.step(f"delete snapshot '{snapshot}'"):
                        delete_one(site, observed, snapshot)

        yield from schedule.carry_out(list(names), {}, work)


def known(layout: Layout, name: str, snapshot: str) -> Snapshot:
    """Return a machine's snapshot; raises NotFoundError."""
    tree = trees.read(layout.machine(name))
    found = tree.find(snapshot)
    if found is None:
        there = ", ".join(tree.names) or "none"
        raise errors.NotFoundError(
            f"Machine '{name}' has no snapshot '{snapshot}'; there are: {there}.",
            hint=f"See them: vmctl snapshot list {name}",
        )
    return found
