"""What `snapshot list` and `snapshot show` tell: the store's tree, held against the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from vmctl import errors
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor import domains
from vmctl.hypervisor import snapshots as monitor
from vmctl.lifecycle import observe, settle, snapshots, taking
from vmctl.lifecycle.steps import Site
from vmctl.store import records
from vmctl.store import snapshots as trees
from vmctl.store.layout import Layout
from vmctl.store.snapshots import Snapshot


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A snapshot in its machine's tree; `problem` says why it cannot be gone back to."""

    depth: int
    current: bool
    snapshot: Snapshot
    problem: str = ""
    carriers: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            **dataclasses.asdict(self.snapshot),
            "current": self.current,
            "problem": self.problem,
            "disks": list(self.carriers),
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A machine's snapshots, parents first; `foreign` are those of other hands.

    `unfinished` names the snapshot that an interrupted command was going back to.
    """

    machine: str
    entries: tuple[Entry, ...]
    foreign: tuple[str, ...] = ()
    unfinished: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            "machine": self.machine,
            "snapshots": [entry.as_dict() for entry in self.entries],
            "foreign": list(self.foreign),
            "unfinished": self.unfinished,
        }


def listings(names: Sequence[str], uri: str | None) -> list[Listing]:
    """Return the snapshots of machines; raises NotFoundError, ConflictError."""
    layout = Layout.default()
    with connections.opened(uri, layout) as connection:
        site = Site(connection, layout)
        return [_listing(site, name) for name in names]


def _listing(site: Site, name: str) -> Listing:
    observed = snapshots.require(observe.observe(site.connection, site.layout, name))
    place = site.layout.machine(name)
    tree = trees.read(place)
    machine = taking.machine_of(observed)
    try:
        held = taking.tags(site, machine, active=observed.state.active)
        unknown = ""
    except errors.VmctlError as refusal:
        held, unknown = {}, refusal.message
    intent = records.intent(place)
    going = intent.get("snapshot") if intent.get("verb") == settle.DELETE else None
    entries = []
    for depth, snapshot in tree.ordered():
        carriers = tuple(disk for disk, tags in held.items() if snapshot.name in tags)
        problem = unknown
        if not problem and snapshot.name == going:
            problem = "it is being deleted; the next command on the machine finishes that"
        if not problem and not carriers:
            problem = "no image holds it any more"
        if not problem and not place.snapshot(snapshot.name).exists():
            problem = "what describes it is lost"
        entries.append(
            Entry(
                depth=depth,
                current=snapshot.name == tree.current,
                snapshot=snapshot,
                problem=problem,
                carriers=carriers,
            )
        )
    restoring = intent.get("verb") == settle.RESTORE
    inside = {tag for tags in held.values() for tag in tags}
    by_libvirt = monitor.foreign(domains.get(site.connection, name))
    return Listing(
        machine=name,
        entries=tuple(entries),
        foreign=tuple(sorted((inside | set(by_libvirt)) - set(tree.names))),
        unfinished=str(intent.get("snapshot", "")) if restoring else "",
    )
