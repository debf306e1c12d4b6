"""`adopt`: takes a domain that others made under vmctl, and changes nothing of it but our element.

The order makes a kill harmless: the spec is written, then what the store remembers, then the
domain is told. Until the last step the same command begins again and finds what it wrote itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from vmctl import errors
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor import domains
from vmctl.lifecycle import execute, observe, steps, workspace
from vmctl.lifecycle.steps import Site
from vmctl.machine import adoption, resolve
from vmctl.machine.adoption import Finding
from vmctl.machine.model import Machine
from vmctl.machine.observed import Observed
from vmctl.machine.xml import metadata
from vmctl.spec import load
from vmctl.spec.problems import SpecError
from vmctl.store import files, home, plain_files, records
from vmctl.store.layout import Layout
from vmctl.store.records import Released

_VERB = "adopt"
_OWN_FILES = ("spec.yaml", "machine.json", "intent.json")
"""What an adoption puts into a machine's directory, and all that may be there before it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which domain, and how; `file` is where its spec goes."""

    name: str
    file: pathlib.Path
    uri: str | None = None
    partial: bool = False
    dry_run: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a domain: its spec, and what of it that cannot say.

    `done` says that it is vmctl's now; `returned` that it was released before, `already` that
    there was nothing to do.
    """

    name: str
    spec: str
    file: str
    findings: tuple[Finding, ...] = ()
    done: bool = False
    returned: bool = False
    already: bool = False


def adopt(request: Request) -> Outcome:
    """Take a domain over, or say why not; `done` is false where the spec cannot say all of it.

    Raises NotFoundError where there is no such domain, ConflictError for one that is vmctl's or
    that can be no machine, UsageError for its name, HostError where this host could not run it.
    """
    layout = Layout.default()
    with connections.opened(request.uri, layout) as connection:
        site = Site(connection, layout)
        if request.dry_run:
            return _look(site, request, observe.observe(connection, layout, request.name))
        refuse_absent(observe.observe(connection, layout, request.name))
        home.opened(layout)
        with execute.locked(site, request.name) as observed:
            return _adopt(site, request, observed)


def refuse_absent(observed: Observed) -> None:
    """Raise NotFoundError where libvirt has no domain of this name."""
    if observed.current is None:
        raise errors.NotFoundError(
            f"Libvirt has no domain '{observed.name}'.", hint="See all: virsh list --all"
        )


def _look(site: Site, request: Request, observed: Observed) -> Outcome:
    """Return what `adopt` would do; changes nothing."""
    refuse_absent(observed)
    returning = _returning(site, observed)
    if returning is not None or _settled(site, observed):
        return _outcome_of_known(site, request, returned=returning is not None)
    proposal, machine = _proposal(site, request, observed)
    found = adoption.findings(machine, _definition(site, request.name).xml)
    text = adoption.commented(proposal, found)
    return Outcome(name=request.name, spec=text, file=str(request.file), findings=found)


def _adopt(site: Site, request: Request, observed: Observed) -> Outcome:
    refuse_absent(observed)
    returning = _returning(site, observed)
    if returning is not None:
        _return(site, observed, returning)
        return _outcome_of_known(site, request, returned=True)
    if _settled(site, observed):
        return _outcome_of_known(site, request, returned=False)
    proposal, machine = _proposal(site, request, observed)
    definition = _definition(site, request.name)
    found = adoption.findings(machine, definition.xml)
    text = adoption.commented(proposal, found)
    if found and not request.partial:
        return Outcome(name=request.name, spec=text, file=str(request.file), findings=found)
    _write_spec(request.file, text)
    _take(site, dataclasses.replace(machine, adopted=True), request.file, text.encode(), observed)
    return Outcome(name=request.name, spec=text, file=str(request.file), findings=found, done=True)


def _write_spec(path: pathlib.Path, text: str) -> None:
    """Write the spec; one that says the same is what a killed adoption has left."""
    try:
        plain_files.write(path, text)
    except FileExistsError:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if path.read_text(encoding="utf-8") == text:
                return
        raise errors.ConflictError(
            f"The file '{path}' is there already, and is another one.",
            hint="Move it away, or name another: --spec FILE",
        ) from None
    except OSError as problem:
        raise errors.UsageError(
            f"The file '{path}' cannot be written: {problem.strerror}.",
            hint="Name another: --spec FILE",
        ) from None


def _settled(site: Site, observed: Observed) -> bool:
    """Tell whether the domain is adopted already; raises ConflictError where it is not to be."""
    current = observed.current
    assert current is not None
    name = observed.name
    place = site.layout.machine(name)
    if observed.intent not in ("", _VERB):
        raise errors.ConflictError(
            f"The store has the files of a machine '{name}' that another command did not finish "
            f"('{observed.intent}').",
            hint=f"Finish that first: vmctl {observed.intent} {name} - or clear it: vmctl gc",
        )
    if not current.owned:
        _refuse_occupied(name, place.directory)
        return False
    if current.machine.console_log != str(place.console_log):
        raise errors.ConflictError(
            f"Machine '{name}' is vmctl's, and its files lie in another store "
            f"('{current.machine.console_log}').",
            hint="Point VMCTL_HOME to that store.",
        )
    if not current.machine.adopted:
        raise errors.ConflictError(
            f"Machine '{name}' was made by vmctl; there is nothing to adopt.",
            hint=f"See its state: vmctl status {name}",
        )
    return not observed.intent and records.read(place) is not None


def _refuse_occupied(name: str, directory: pathlib.Path) -> None:
    """Raise ConflictError where files of another machine lie: `down` would remove them as well."""
    try:
        others = [entry for entry in os.listdir(directory) if entry not in _OWN_FILES]
    except OSError:
        return
    if others:
        raise errors.ConflictError(
            f"The store has files of another machine '{name}' ('{directory / min(others)}').",
            hint=f"See what they are: vmctl gc -n {name} - and clear them, or rename the domain.",
        )


def _outcome_of_known(site: Site, request: Request, *, returned: bool) -> Outcome:
    place = site.layout.machine(request.name)
    record = records.read(place)
    gone = records.released(place)
    known = record or (gone.record if gone else None)
    try:
        text = place.spec.read_text()
    except OSError:
        text = ""
    return Outcome(
        name=request.name,
        spec=text,
        file=known.spec if known else "",
        done=not request.dry_run,
        returned=returned,
        already=not returned,
    )


def _definition(site: Site, name: str) -> domains.Definition:
    definition = domains.definition(domains.get(site.connection, name))
    if definition is None or not definition.persistent:
        raise errors.ConflictError(
            f"Domain '{name}' is transient: it is gone when it stops.",
            hint=f"Make it last: virsh dumpxml {name} > {name}.xml && virsh define {name}.xml",
        )
    return definition


def _proposal(site: Site, request: Request, observed: Observed) -> tuple[str, Machine]:
    """Return the spec of a domain, and the machine that it means on this host."""
    definition = _definition(site, request.name)
    adoption.refuse_impossible(definition.xml)
    text = adoption.spec(definition.xml, autostart=definition.autostart)
    around = workspace.surroundings(
        site.layout, site.connection.uri, create_store=not request.dry_run
    )
    with tempfile.TemporaryDirectory(prefix="vmctl-adopt-") as directory:
        draft = pathlib.Path(directory) / f"{request.name}.yaml"
        files.write(draft, text.encode())
        try:
            document = load.load(draft, allow_outside=True)
            machines = resolve.resolve(document, around)
        except SpecError as problem:
            raise errors.RefusedError(
                f"No spec can say what domain '{request.name}' is.",
                hint="Go on using it with virsh.",
                details="\n".join(each.message for each in problem.problems),
            ) from None
    assert observed.current is not None
    # The UUID stays what it is.
    return text, dataclasses.replace(machines[0], uuid=observed.current.machine.uuid)


def _take(
    site: Site, machine: Machine, file: pathlib.Path, text: bytes, observed: Observed
) -> None:
    """Remember a machine, and then tell its domain whose it is."""
    place = site.layout.machine(machine.name)
    before = _definition(site, machine.name)
    records.begin(place, _VERB)
    files.write(place.spec, text)
    active = observed.state.active
    steps.remember(site, machine, os.path.abspath(file), machine.uuid, running=active)
    _note(site, machine.name, ready=machine.ready.when == "running")
    own = metadata.text(machine)
    running = metadata.live_text(machine, machine.digest) if active else ""
    _label(site, machine.name, own, running)
    _require_same(site, machine.name, before)
    records.finish(place)


def _note(site: Site, name: str, *, ready: bool) -> None:
    """Say in the record who made the domain, and which run of it goes on."""
    place = site.layout.machine(name)
    record = records.read(place)
    assert record is not None
    number = domains.get(site.connection, name).ID()
    changed = dataclasses.replace(record, adopted=True, boot_id=number, ready=ready and number > 0)
    records.write(place, changed)


def _label(site: Site, name: str, text: str, running: str) -> None:
    domain = domains.get(site.connection, name)
    domains.label(domain, text)
    if running:
        domains.label(domain, running, live=True)


def _require_same(site: Site, name: str, before: domains.Definition) -> None:
    """Look at the domain once more: nothing but our element may have changed."""
    if _without_metadata(_definition(site, name).xml) != _without_metadata(before.xml):
        raise errors.ConflictError(
            f"The definition of '{name}' was changed by other hands while it was being adopted.",
            hint="Run the same command again.",
        )


def _without_metadata(text: str) -> str:
    root = ET.fromstring(text)  # noqa: S314  (libvirt's own output)
    for block in root.findall("metadata"):
        root.remove(block)
    ET.indent(root)
    return ET.canonicalize(ET.tostring(root, encoding="unicode"), strip_text=True)


def _returning(site: Site, observed: Observed) -> Released | None:
    """Return what was let go of under this name, if it is this domain."""
    assert observed.current is not None
    place = site.layout.machine(observed.name)
    gone = records.released(place)
    if gone is None:
        return None
    if gone.record.uuid != observed.current.machine.uuid or gone.record.uri != site.connection.uri:
        raise errors.ConflictError(
            f"The store has the files of another machine '{observed.name}' that was released.",
            hint=f"See whether they are still used: vmctl gc -n {observed.name}",
        )
    return gone


def _return(site: Site, observed: Observed, gone: Released) -> None:
    """Take a machine back that was released: all that it was is still there."""
    place = site.layout.machine(observed.name)
    records.begin(place, _VERB)
    running = ""
    if observed.state.active:
        same = domains.get(site.connection, observed.name).ID() == gone.boot_id
        running = gone.live if same and gone.live else gone.metadata
    _label(site, observed.name, gone.metadata, running)
    records.write(place, gone.record)
    files.remove(place.released)
    records.finish(place)


def plain(found: Sequence[Finding]) -> list[dict[str, str]]:
    """Return findings as plain data, for JSON."""
    return [dataclasses.asdict(one) for one in found]
