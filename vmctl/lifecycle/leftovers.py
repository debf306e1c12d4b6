"""`gc`: what killed commands and other hands left behind, shown and cleared.

Nothing is judged that another vmctl works on at this moment: its lock tells. What may hold data of
the user's is never cleared unless that is asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import pathlib
from collections.abc import Collection, Iterator

from vmctl import errors
from vmctl.hypervisor import domains, networks
from vmctl.hypervisor.connection import Connection
from vmctl.lifecycle import execute, observe, release, removal, schedule, steps
from vmctl.lifecycle.events import Event
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine.observed import Observed
from vmctl.machine.xml import network as network_xml
from vmctl.store import files, locks, records
from vmctl.store.layout import Layout, MachineFiles

_BLOCK = 512
"""st_blocks counts these, whatever the file system's own blocks are (stat(2))."""


class Kind(enum.StrEnum):
    """What was left."""

    HALF_MADE = "half-made machine"
    HALF_REMOVED = "half-removed machine"
    WITHOUT_FILES = "domain without files"
    WITHOUT_DOMAIN = "machine without domain"
    HALF_ADOPTED = "half-adopted machine"
    KEPT = "kept disks"
    RELEASED = "files of a released machine"
    TEMPORARY = "unfinished file"
    SNAPSHOT = "unfinished snapshot"
    RUN = "machine of a dead run"
    NETWORK = "unused network"
    COMPARISON = "rest of a comparison"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """One thing that was left; `size` is what it takes on disk, in bytes.

    `data` says that something of the user's may be lost with it.
    """

    kind: Kind
    name: str
    where: str
    size: int
    why: str
    data: bool = False


def find(connection: Connection, layout: Layout, names: Collection[str] = ()) -> list[Leftover]:
    """Return all that was left in this store and on this connection, or of some names only."""
    found = [*_machines(connection, layout), *_domains(connection, layout)]
    if names:
        return [leftover for leftover in found if leftover.name in names]
    return [*found, *_networks(connection, layout)]


def clear(site: Site, chosen: Collection[Leftover]) -> Iterator[Event]:
    """Remove leftovers, each under its machine's lock and only if it still is what it was."""
    by_name = {leftover.name: leftover for leftover in chosen}

    def work(name: str, worker: Worker) -> None:
        leftover = by_name[name]
        if leftover.kind is Kind.NETWORK:
            with worker.step("remove network"):
                _remove_network(site, name)
            return
        with execute.locked(site, name) as observed:
            # Taking the lock has removed unfinished files, and settled unfinished snapshots.
            done = leftover.kind in (Kind.TEMPORARY, Kind.SNAPSHOT)
            if not done and _still(site, leftover, observed):
                _remove(site, leftover, observed, worker)

    yield from schedule.carry_out(list(by_name), {}, work)


def _machines(connection: Connection, layout: Layout) -> Iterator[Leftover]:
    """Yield what is wrong with the machines that the store has files of."""
    try:
        names = sorted(os.listdir(layout.machines))
    except OSError:
        return
    for name in names:
        place = layout.machine(name)
        kind, why = _judge(connection, layout, name) if place.directory.is_dir() else (None, "")
        if kind is not None and not _busy(layout, name):
            yield Leftover(
                kind=kind,
                name=name,
                where=os.fspath(place.directory),
                size=_taken(place.directory),
                why=why,
                data=kind in (Kind.WITHOUT_DOMAIN, Kind.KEPT, Kind.RELEASED),
            )


def _judge(connection: Connection, layout: Layout, name: str) -> tuple[Kind | None, str]:
    place = layout.machine(name)
    record, intent = records.read(place), records.intent(place)
    verb = str(intent.get("verb", ""))
    if record is not None and (record.uri != connection.uri or record.transient):
        # Whoever waits for a run's machine holds this lock; nobody else touches it then.
        others = record.uri != connection.uri or locks.held(layout.lock("run", name))
        return (None, "") if others else (Kind.RUN, "its 'run' was killed")
    gone = records.released(place)
    if gone is not None:
        return _judge_released(connection, place, gone.record.uri)
    if verb == "adopt":
        return Kind.HALF_ADOPTED, "'adopt' was interrupted; the domain itself is as it was"
    domain = domains.find(connection, name)
    if verb == "down":
        return Kind.HALF_REMOVED, "'down' was interrupted"
    if domain is None:
        return _judge_without_domain(place, record, verb)
    if files.temporaries(place.directory):
        return Kind.TEMPORARY, "a command was killed while it wrote"
    if verb.startswith("snapshot"):
        return Kind.SNAPSHOT, f"'{verb}' was interrupted; the machine itself is whole"
    return None, ""


def _judge_released(
    connection: Connection, place: MachineFiles, uri: str
) -> tuple[Kind | None, str]:
    """Judge what a machine left behind that was let go of: its domain may use it for ever."""
    if uri != connection.uri or release.in_use(connection, place):
        return None, ""
    return Kind.RELEASED, "released by vmctl, and no domain uses its files any more"


def _judge_without_domain(
    place: MachineFiles, record: records.Record | None, verb: str
) -> tuple[Kind | None, str]:
    if record is None and verb == "up":
        return Kind.HALF_MADE, "'up' was interrupted before the machine existed"
    if record is not None:
        return Kind.WITHOUT_DOMAIN, "its domain was removed by other hands; the disks are whole"
    disks = sorted(path.stem for path in place.directory.glob("*.qcow2"))
    if disks:
        return Kind.KEPT, f"{', '.join(disks)}: kept by 'down' (keep: true)"
    return Kind.HALF_REMOVED, "nothing says any more what it was"


def _domains(connection: Connection, layout: Layout) -> Iterator[Leftover]:
    """Yield domains that this store made and has no files of."""
    for name in domains.names(connection):
        if layout.machine(name).record.exists():
            continue
        observed = observe.observe(connection, layout, name)
        if observed.intent or not _ours(observed, layout) or _busy(layout, name):
            continue
        yield Leftover(
            kind=Kind.WITHOUT_FILES,
            name=name,
            where=connection.uri,
            size=0,
            why=f"the store has nothing of it; it is {observed.state}",
            data=observed.state.active,
        )


def _ours(observed: Observed, layout: Layout) -> bool:
    """Tell a domain that this store made from those of others: its console log lies here."""
    current = observed.current
    return (
        current is not None
        and current.owned
        and not current.machine.adopted
        and current.machine.console_log == os.fspath(layout.machine(observed.name).console_log)
    )


def _networks(connection: Connection, layout: Layout) -> Iterator[Leftover]:
    wanted = set(records.networks(layout, connection.uri))
    for name in () if connection.session else network_xml.NAMES.values():
        if name not in wanted and networks.unused(connection, name):
            yield Leftover(
                kind=Kind.NETWORK,
                name=name,
                where=connection.uri,
                size=0,
                why="no machine is plugged into it",
            )


def _busy(layout: Layout, name: str) -> bool:
    """Tell whether another vmctl works on a machine right now.

    Asked only where something looks wrong: the question itself takes the lock for a moment.
    """
    try:
        with locks.hold(layout.lock("machine", name), None, f"Machine '{name}'"):
            return False
    except errors.ConflictError:
        return True


def _still(site: Site, leftover: Leftover, observed: Observed) -> bool:
    """Judge once more, now that nobody else can change it."""
    if leftover.kind is Kind.WITHOUT_FILES:
        return not observed.files and _ours(observed, site.layout)
    return _judge(site.connection, site.layout, leftover.name)[0] is leftover.kind


def _remove(site: Site, leftover: Leftover, observed: Observed, worker: Worker) -> None:
    if leftover.kind is Kind.HALF_ADOPTED:
        with worker.step("let go"):
            _let_go(site, observed)
    if leftover.kind in (Kind.HALF_ADOPTED, Kind.RELEASED):
        with worker.step("remove files"):
            steps.remove_files(site, leftover.name, kept=frozenset())
        return
    if observed.exists or observed.files:
        removal.remove(site, observed, worker)
    if leftover.kind in (Kind.KEPT, Kind.WITHOUT_DOMAIN) or not observed.files:
        with worker.step("remove files"):
            steps.remove_files(site, leftover.name, kept=frozenset())


def _let_go(site: Site, observed: Observed) -> None:
    """Take our element out of a domain that was not adopted to the end."""
    current = observed.current
    if current is None or not (current.owned and current.machine.adopted):
        return
    domain = domains.get(site.connection, observed.name)
    if observed.state.active:
        domains.label(domain, "", live=True)
    domains.label(domain, "")


def _remove_network(site: Site, name: str) -> None:
    with steps.network_lock(site, name):
        if name not in set(records.networks(site.layout, site.connection.uri)):
            networks.remove_unused(site.connection, name)


def _taken(directory: pathlib.Path) -> int:
    """Return how many bytes the files of a directory take on disk."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            total += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
    return total
