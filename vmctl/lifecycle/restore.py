"""Goes back to a snapshot: in the running QEMU where its hardware is the same, else in a new one.

Until the end an intent stands in the store. A machine with it is not started: its disks may be
those of the snapshot already while its memory is not. The same command, run again, finishes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import threading
from collections.abc import Iterator, Sequence

from vmctl import errors
from vmctl.deadline import TCG_PATIENCE, Deadline
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor import domains
from vmctl.hypervisor import monitor as forwards
from vmctl.hypervisor import snapshots as monitor
from vmctl.lifecycle import (
    access,
    backup_marks,
    execute,
    first_boot,
    observe,
    schedule,
    settle,
    snapshots,
    steps,
    taking,
)
from vmctl.lifecycle.events import Event
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.snapshots import Request
from vmctl.lifecycle.steps import Site
from vmctl.machine.model import Accel, Machine
from vmctl.machine.observed import Observed
from vmctl.machine.state import State
from vmctl.machine.xml import domain as domain_xml
from vmctl.store import files, records
from vmctl.store import snapshots as trees
from vmctl.store.layout import Layout
from vmctl.store.records import Record
from vmctl.store.snapshots import Detail, Kind, Snapshot

_CLOCK_SECONDS = 5.0
_KEPT_SAFETY = 5
"""So many of the snapshots stay that a restore makes by itself."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """One machine's way back: what it is now, what it will be."""

    observed: Observed
    snapshot: Snapshot
    detail: Detail
    machine: Machine
    memory: bool

    @property
    def name(self) -> str:
        return self.observed.name


class _Others:
    """The machines that go back together: each waits until the others are back, or have failed."""

    def __init__(self, count: int) -> None:
        self._missing = count
        self._changed = threading.Condition()
        self._own = threading.local()
        self.several = count > 1

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Be one of them for the block, in a thread of its own; nobody waits for it afterwards."""
        try:
            yield
        finally:
            self._arrive()

    def wait(self) -> None:
        """Wait for all; not to be called within a step, of which only a few run at a time."""
        self._arrive()
        with self._changed:
            self._changed.wait_for(lambda: self._missing == 0)

    def _arrive(self) -> None:
        if not getattr(self._own, "arrived", False):
            self._own.arrived = True
            with self._changed:
                self._missing -= 1
                self._changed.notify_all()


def restore(request: Request) -> Iterator[Event]:
    """Put machines back to a snapshot; all that can be refused is refused before one is touched.

    They run, or stand still, as they did then. Of several none goes on before all are back: their
    guests never speak to one that is still in the other time.
    """
    layout = Layout.default()
    with connections.opened(request.uri, layout) as connection:
        site = Site(connection, layout)
        ways = [
            _way(site, snapshots.require(observe.observe(connection, layout, name)), request)
            for name in request.names
        ]
        if len(ways) > 1 and request.safety:
            yield from _safety_of_all(site, ways)
        others = _Others(len(request.names))

        def work(name: str, worker: Worker) -> None:
            with others.one():
                _restore(site, name, request, worker, others)

        yield from schedule.carry_out(list(request.names), {}, work)


def _safety_of_all(site: Site, ways: Sequence[_Way]) -> Iterator[Event]:
    """Keep what there is of several machines now, at the same moment and under the same name."""
    names = [way.name for way in ways if not way.observed.intent and _has_something(way)]
    if names:
        name = snapshots.own_name(site.layout, names, snapshots.RESTORE)
        asked = Request(names=names, snapshot=name, origin=snapshots.RESTORE)
        with _way_out_told():
            yield from snapshots.create_at(site, asked)


@contextlib.contextmanager
def _way_out_told() -> Iterator[None]:
    """Have an error say that one can go back without keeping what there is."""
    try:
        yield
    except errors.VmctlError as problem:
        way_out = "To go back without keeping what is there now: --no-safety"
        problem.hint = f"{problem.hint} {way_out}".strip()
        raise


def _way(site: Site, observed: Observed, request: Request) -> _Way:
    """Refuse what cannot be done, before anything is touched."""
    name = observed.name
    place = site.layout.machine(name)
    snapshot = snapshots.known(site.layout, name, request.snapshot)
    detail = trees.read_detail(place, snapshot.name)
    if detail is None:
        raise errors.RefusedError(
            f"The file '{place.snapshot(snapshot.name)}' is lost, and with it what machine "
            f"'{name}' was at snapshot '{snapshot.name}'.",
            hint=f"Its disks are still there: qemu-img snapshot -l {place.directory}/*.qcow2",
        )
    if observed.intent and observed.intent != settle.RESTORE:
        raise errors.ConflictError(
            f"'{observed.intent}' of machine '{name}' was interrupted and is not finished.",
            hint=f"Finish it: run that command again. See: vmctl status {name}",
        )
    if observed.state is State.SAVED:
        raise errors.ConflictError(
            f"Machine '{name}' is saved: what lies beside would be lost.",
            hint=f"Let it go on first: vmctl start {name}",
        )
    machine = domain_xml.read(detail.xml).machine
    backup_marks.require_own(site, taking.machine_of(observed))
    _require_data(site, observed, machine, snapshot)
    _require_ports(site, observed, machine)
    memory = snapshot.kind is Kind.MEMORY and not request.disks_only
    way = _Way(observed=observed, snapshot=snapshot, detail=detail, machine=machine, memory=memory)
    if snapshot.kind is Kind.MEMORY and not machine.disks and not memory:
        raise errors.UsageError(f"Machine '{name}' has no disk that could be restored alone.")
    return way


def _require_data(site: Site, observed: Observed, machine: Machine, snapshot: Snapshot) -> None:
    """Raise RefusedError where an image does not hold the snapshot any more."""
    now = taking.machine_of(observed)
    found = taking.tags(site, now, active=observed.state.active)
    for carrier in taking.carriers(site, machine):
        held = found.get(carrier.name)
        if held is None and os.path.exists(carrier.path):
            # A disk that the machine has had since is looked at from outside.
            held = taking.tags(site, machine, active=False).get(carrier.name, {})
        if not held or snapshot.name not in held:
            raise errors.RefusedError(
                f"'{carrier.path}' does not hold snapshot '{snapshot.name}' of machine "
                f"'{machine.name}' any more.",
                hint=f"Forget it: vmctl snapshot delete {machine.name} {snapshot.name}",
            )


def _require_ports(site: Site, observed: Observed, machine: Machine) -> None:
    """Raise ConflictError where somebody else has a port by now that is to be forwarded again."""
    own = set()
    if observed.state.active:
        own = forwards.forwards(domains.get(site.connection, observed.name))
    missing = tuple(port for port in machine.forwards if port not in own)
    steps.refuse_taken_ports(dataclasses.replace(machine, forwards=missing))


def _restore(site: Site, name: str, request: Request, worker: Worker, others: _Others) -> None:
    with execute.locked(site, name) as observed:
        way = _way(site, snapshots.require(observed), request)
        if request.safety and not observed.intent and _has_something(way):
            way = _with_safety(site, way, worker, others)
        records.begin(site.layout.machine(name), settle.RESTORE, snapshot=way.snapshot.name)
        if backup_marks.drop(site, taking.machine_of(way.observed)):
            worker.note(
                "info", "what was recorded for backups is void: the next one while it runs is full"
            )
        if way.memory:
            _with_memory(site, way, worker)
        else:
            _disks(site, way, worker)
        others.wait()
        if way.memory and way.snapshot.running:
            domains.resume(domains.get(site.connection, name))
        records.finish(site.layout.machine(name))
        started = None
        if not way.memory and way.snapshot.running:
            now = observe.observe(site.connection, site.layout, name)
            started = execute.start_again(site, now, worker)
    if started is not None:
        execute.wait_until_ready(site, started, worker)
    if way.memory and way.snapshot.running:
        _set_clock(site, way, worker)


def _has_something(way: _Way) -> bool:
    """Tell whether anything would be lost: a stopped machine without disks has nothing."""
    return way.observed.state.active or bool(taking.machine_of(way.observed).disks)


def _with_safety(site: Site, way: _Way, worker: Worker, others: _Others) -> _Way:
    """Keep what is there now, unless that was done for all; the oldest of many such goes."""
    with _way_out_told():
        kept = (site, way.observed, snapshots.RESTORE, _KEPT_SAFETY)
        if others.several:
            snapshots.drop_older(*kept, spared=way.snapshot.name)
        else:
            snapshots.take_by_itself(*kept, worker, spared=way.snapshot.name)
    return dataclasses.replace(
        way, observed=observe.observe(site.connection, site.layout, way.name)
    )


def _with_memory(site: Site, way: _Way, worker: Worker) -> None:
    name = way.name
    domain = domains.get(site.connection, name)
    in_place = way.observed.state in (State.RUNNING, State.PAUSED) and (
        taking.hardware(site, name) == way.detail.hardware
    )
    with worker.step("restore (disks and memory)"):
        if in_place:
            if way.observed.state is State.RUNNING:
                domains.pause(domain)
        else:
            if way.observed.state.active:
                domains.force_off(domain)
            steps.ensure_networks(site, way.machine)
        if monitor.definition(domain) != way.detail.xml:
            monitor.redefine(domain, way.detail.xml)
        if not in_place:
            monitor.start_paused(domain)
        _load(site, way)
        _put_back(site, way)
        first_boot.before_start(site.layout, way.machine)
        steps.forward(site, way.machine)


def _load(site: Site, way: _Way) -> None:
    try:
        taking.load(site, way.machine, way.snapshot.name)
    except errors.VmctlError as problem:
        # Half of a memory must never run.
        with contextlib.suppress(errors.VmctlError):
            domains.force_off(domains.get(site.connection, way.name))
        raise errors.HypervisorError(
            f"The memory of snapshot '{way.snapshot.name}' could not be put back into machine "
            f"'{way.name}', which is off now: {problem.message}",
            hint="Try again; or start from its disks alone: "
            f"vmctl snapshot restore --disks {way.name} {way.snapshot.name}",
            details=problem.details,
        ) from None


def _disks(site: Site, way: _Way, worker: Worker) -> None:
    """Give the stopped machine the disks and the definition of the snapshot."""
    domain = domains.get(site.connection, way.name)
    with worker.step("restore (disks)"):
        if way.observed.state.active:
            domains.force_off(domain)
        taking.apply(site, way.machine, way.snapshot.name)
        nvram = site.layout.machine(way.name).snapshot_nvram(way.snapshot.name)
        if way.machine.nvram and nvram.exists():
            path = pathlib.Path(way.machine.nvram)
            files.write(path, nvram.read_bytes())
            taking.give_to_qemu(path, way.machine)
        if monitor.definition(domain) != way.detail.xml:
            monitor.redefine(domain, way.detail.xml)
        _put_back(site, way)


def _put_back(site: Site, way: _Way) -> None:
    """Have the store remember the machine as it was, and where it goes on from."""
    place = site.layout.machine(way.name)
    now = observe.observe(site.connection, site.layout, way.name)
    before = records.read(place)
    kept = way.detail.record
    if before is not None and kept:
        known = {field.name for field in dataclasses.fields(Record)}
        then = Record(
            **{
                **{key: value for key, value in kept.items() if key in known},
                "networks": tuple(kept.get("networks", ())),
                "kept": before.kept,
            }
        )
        active = now.state.active
        run = domains.get(site.connection, way.name).ID() if active else -1
        record = dataclasses.replace(
            then,
            boot_id=run,
            boot_offset=before.boot_offset,
            ready=then.ready and way.memory,
            ssh_port=before.ssh_port,
            uri=before.uri,
        )
        records.write(place, record)
        _put_files_back(site, way, now, record)
    trees.write(place, trees.read(place).at(way.snapshot.name))


def _put_files_back(site: Site, way: _Way, now: Observed, record: Record) -> None:
    """Write the small files of that time; what names the guest's run then names this one."""
    place = site.layout.machine(way.name)
    run = access.run_of(site.connection, now, record) if now.state.active else ""
    for kind in ("spec", "payload", "inside"):
        path = getattr(place, kind)
        text = way.detail.files.get(kind)
        if text is None:
            files.remove(path)
            continue
        files.write(path, text.encode("utf-8", "surrogateescape"))
    taking.rename_run(place, way.detail.run, run)


def _set_clock(site: Site, way: _Way, worker: Worker) -> None:
    """Give the guest the time of now: it woke up in the past."""
    done = False
    if way.detail.agent:
        patience = TCG_PATIENCE if way.machine.accel is Accel.TCG else 1
        with worker.step("clock", patient=True):
            domain = domains.get(site.connection, way.name)
            deadline = Deadline.after(_CLOCK_SECONDS * patience)
            done = monitor.set_clock(domain, deadline, lambda: worker.cancelled)
    if not done:
        worker.note(
            "warning",
            "no agent answers inside: the guest's clock shows the time of the snapshot",
            f"Set it: vmctl exec {way.name} -- date -u -s @$(date +%s)",
        )
