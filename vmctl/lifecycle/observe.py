"""Finds out what is there: libvirt first, the store for ownership and interrupted work."""

from __future__ import annotations

from collections.abc import Iterable

from vmctl.hypervisor import domains
from vmctl.hypervisor.connection import Connection
from vmctl.machine.observed import Observed
from vmctl.machine.state import State
from vmctl.machine.xml import domain as domain_xml
from vmctl.store import records
from vmctl.store.layout import Layout


def observe(connection: Connection, layout: Layout, name: str) -> Observed:
    """Return what is there under a name."""
    place = layout.machine(name)
    intent = str(records.intent(place).get("verb", ""))
    files = place.record.exists() or bool(intent)
    domain = domains.find(connection, name)
    definition = domains.definition(domain) if domain is not None else None
    if domain is None or definition is None:
        return Observed(name=name, intent=intent, files=files)
    state, reason = domains.state(domain)
    live = domains.live_xml(connection, name) if state.active else ""
    return Observed(
        name=name,
        state=state,
        reason=reason,
        current=domain_xml.read(definition.xml, autostart=definition.autostart),
        live=domain_xml.read(live, autostart=definition.autostart) if live else None,
        intent=intent,
        files=files,
    )


def observe_all(
    connection: Connection, layout: Layout, names: Iterable[str]
) -> dict[str, Observed]:
    """Return what is there under each of the names."""
    return {name: observe(connection, layout, name) for name in names}


def orphans(connection: Connection, layout: Layout, spec: str, named: set[str]) -> list[str]:
    """Return machines that were made from a spec, on this connection, and are not in it any more.

    By the file and not by the project: specs of one directory share their default project.
    """
    found = []
    for record in records.every(layout):
        if record.spec == spec and record.name not in named and record.uri == connection.uri:
            seen = observe(connection, layout, record.name)
            if seen.state is not State.ABSENT or seen.files:
                found.append(record.name)
    return found
