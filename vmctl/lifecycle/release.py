"""`release`: lets go of a machine without touching it; its domain goes on, and so do its files."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from vmctl import errors
from vmctl.hypervisor import bulk, domains
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor.connection import Connection
from vmctl.lifecycle import execute, observe, removal
from vmctl.lifecycle.steps import Site
from vmctl.machine.observed import Observed
from vmctl.machine.xml import metadata
from vmctl.store import files, records
from vmctl.store.layout import Layout, MachineFiles
from vmctl.store.records import Record, Released

_VERB = "release"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was let go of: the files of the store that the domain goes on using, and its networks.

    `directory` is where they stay, `running` that the guest goes on.
    """

    name: str
    directory: str
    uses: tuple[str, ...]
    networks: tuple[str, ...]
    running: bool


def release(name: str, uri: str | None = None) -> Outcome:
    """Take our element out of a domain and forget the machine; nothing is stopped or removed.

    Raises NotFoundError where there is no such machine, ConflictError for a domain of others and
    for a machine on which another command was interrupted.
    """
    layout = Layout.default()
    with connections.opened(uri, layout) as connection:
        site = Site(connection, layout)
        _require(site, observe.observe(connection, layout, name))
        with execute.locked(site, name) as observed:
            return _release(site, observed)


def _require(site: Site, observed: Observed) -> Record:
    """Return the record of a machine that may be let go of."""
    name = observed.name
    place = site.layout.machine(name)
    gone = records.released(place)
    record = records.read(place) or (gone.record if gone else None)
    current = observed.current
    if current is not None and not current.owned and observed.intent == _VERB and record:
        return record  # it was interrupted when the domain had been let go of
    removal.refuse_foreign(observed)
    if observed.current is None or record is None:
        raise errors.NotFoundError(
            f"There is no domain of machine '{name}' that could be released."
            if observed.current is None
            else f"This store has no record of machine '{name}'.",
            hint=f"See what is left of it: vmctl gc -n {name}",
        )
    if observed.current.machine.console_log != str(place.console_log):
        raise errors.ConflictError(
            f"The files of machine '{name}' lie in another store "
            f"('{observed.current.machine.console_log}').",
            hint="Point VMCTL_HOME to that store.",
        )
    if observed.intent not in ("", _VERB):
        raise errors.ConflictError(
            f"'{observed.intent}' was interrupted on machine '{name}'.",
            hint="Run that again first; then release it.",
        )
    return record


def _release(site: Site, observed: Observed) -> Outcome:
    record = _require(site, observed)
    place = site.layout.machine(observed.name)
    records.begin(place, _VERB)
    domain = domains.get(site.connection, observed.name)
    texts = [domains.inactive_xml(site.connection, observed.name)]
    if observed.state.active:
        texts.append(domains.live_xml(site.connection, observed.name))
    own = [metadata.present(text) for text in texts]
    if own[0]:
        live = own[1] if len(own) > 1 else ""
        records.release(place, Released(record, own[0], live, domain.ID()))
    if len(own) > 1 and own[1]:
        domains.label(domain, "", live=True)
    if own[0]:
        domains.label(domain, "")
    files.remove(place.record)
    records.finish(place)
    return Outcome(
        name=observed.name,
        directory=os.fspath(place.directory),
        uses=tuple(sorted({path for text in texts for path in _below(text, site.layout.home)})),
        networks=record.networks,
        running=observed.state.active,
    )


def _below(text: str, directory: pathlib.Path) -> Iterator[str]:
    """Yield the files below a directory that a domain names."""
    root = ET.fromstring(text)  # noqa: S314  (libvirt's own output)
    start = f"{directory}{os.sep}"
    for element in (each for block in root if block.tag != "metadata" for each in block.iter()):
        for value in (*element.attrib.values(), (element.text or "").strip()):
            if value.startswith(start):
                yield value


def in_use(connection: Connection, place: MachineFiles) -> bool:
    """Tell whether any domain names a file of a machine's directory, whatever it is called now."""
    start = f"{place.directory}{os.sep}"
    return any(start in text for _, text in bulk.definitions(connection))
