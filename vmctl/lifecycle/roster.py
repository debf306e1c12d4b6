"""What `ps` shows: many machines, with one call to libvirt and few imports."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

from vmctl.hypervisor import bulk
from vmctl.hypervisor.connection import Connection
from vmctl.machine.state import State
from vmctl.store import records, snapshots
from vmctl.store.layout import Layout


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One machine in a list; memory in bytes."""

    name: str
    project: str
    state: State
    reason: str
    ready: bool
    mode: str
    image: str
    cpus: int
    memory: int
    spec: str
    snapshots: int = 0


def rows(connection: Connection, layout: Layout, *, project: str = "") -> Iterator[Row]:
    """Yield the store's machines on this connection, with one bulk call to libvirt.

    Which domains are vmctl's own is read from the store: asking libvirt for each one's metadata
    would cost a call each. Name and UUID must both match.
    """
    there = {summary.name: summary for summary in bulk.summaries(connection)}
    for record in records.every(layout):
        if record.uri != connection.uri or (project and record.project != project):
            continue
        summary = there.get(record.name)
        ours = summary is not None and summary.uuid == record.uuid
        state, reason = State.ABSENT, "it has files but no domain; see vmctl status"
        if summary is not None and ours:
            state, reason = summary.state, summary.reason
            if state is State.PAUSED and not reason:
                state, reason = _look_closer(connection, record.name)
        running = state is State.RUNNING and summary is not None
        yield Row(
            name=record.name,
            project=record.project,
            state=state,
            reason=reason,
            ready=running and record.ready and summary is not None and summary.id == record.boot_id,
            mode=record.mode,
            image=record.image,
            cpus=record.cpus,
            memory=record.memory,
            spec=record.spec,
            snapshots=snapshots.count(layout.machine(record.name)),
        )


def _look_closer(connection: Connection, name: str) -> tuple[State, str]:
    """Ask QEMU itself about a guest that is paused for no known reason."""
    from vmctl.hypervisor import domains

    return domains.state(domains.get(connection, name))


def project_of(layout: Layout, spec: str) -> str:
    """Return the project whose machines were made from a spec, without reading it."""
    path = os.path.abspath(spec)
    return next((record.project for record in records.every(layout) if record.spec == path), "")
