"""What `ps` and `status` show: bulk calls for the many, details for the one."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from typing import Any

from vmctl import errors
from vmctl.hypervisor import domains, monitor, networks
from vmctl.hypervisor.connection import Connection
from vmctl.lifecycle import observe, removal
from vmctl.machine import plan
from vmctl.machine.model import Accel, Machine, NicKind
from vmctl.machine.observed import Observed, State
from vmctl.store import records
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


def rows(
    connection: Connection, layout: Layout, *, project: str = "", names: Collection[str] = ()
) -> Iterator[Row]:
    """Yield the store's machines on this connection, with one bulk call to libvirt.

    Which domains are vmctl's own is read from the store: asking libvirt for each one's metadata
    would cost a call each. Name and UUID must both match.
    """
    there = {summary.name: summary for summary in domains.summaries(connection)}
    for record in records.every(layout):
        if record.uri != connection.uri or (project and record.project != project):
            continue
        if names and record.name not in names:
            continue
        summary = there.get(record.name)
        ours = summary is not None and summary.uuid == record.uuid
        state, reason = State.ABSENT, "it has files but no domain; see vmctl status"
        if summary is not None and ours:
            state, reason = summary.state, summary.reason
            if state is State.PAUSED and not reason:
                state, reason = domains.state(domains.get(connection, record.name))
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
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """One machine in full; `accel` is what the running QEMU says, not what was asked for."""

    machine: Machine
    state: State
    reason: str
    ready: bool
    accel: str
    addresses: tuple[str, ...]
    forwards: tuple[str, ...]
    drift: tuple[str, ...]
    interrupted: str
    spec: str
    login: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        data = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "machine"
        }
        return {"name": self.machine.name, **data, "machine": self.machine.as_dict()}


def details(connection: Connection, layout: Layout, name: str) -> Details:
    """Return all about one machine; raises NotFoundError, ConflictError for a foreign domain."""
    observed = observe.observe(connection, layout, name)
    removal.refuse_foreign(observed)
    if observed.current is None:
        raise errors.NotFoundError(
            f"Machine '{name}' has files in the store, but libvirt has no domain of that name "
            f"({observed.intent or 'it was removed by other hands'}).",
            hint=f"Make it again with vmctl up SPEC, or clear it with vmctl down {name}.",
        )
    machine = observed.current.machine
    record = records.read(layout.machine(name))
    running = observed.state.active and connection.real
    domain = domains.get(connection, name)
    return Details(
        machine=machine,
        state=observed.state,
        reason=observed.reason,
        ready=running and record is not None and record.ready and record.boot_id == domain.ID(),
        accel=_accel(connection, name) if running else "",
        addresses=_addresses(connection, machine) if running else (),
        forwards=_forwards(connection, machine) if running else (),
        drift=_drift(observed, record),
        interrupted=observed.intent,
        spec=record.spec if record else "",
        login=record.login if record else "",
        why=record.why if record else "",
    )


def _accel(connection: Connection, name: str) -> str:
    enabled = monitor.kvm_enabled(domains.get(connection, name))
    return Accel.KVM.value if enabled else Accel.TCG.value


def _addresses(connection: Connection, machine: Machine) -> tuple[str, ...]:
    found = []
    for nic in machine.nics:
        if nic.kind in (NicKind.NAT, NicKind.ISOLATED):
            address = networks.leases(connection, nic.network).get(nic.mac)
            if address:
                found.append(address)
    return tuple(found)


def _forwards(connection: Connection, machine: Machine) -> tuple[str, ...]:
    if not any(nic.kind is NicKind.USER for nic in machine.nics):
        return ()
    there = monitor.forwards(domains.get(connection, machine.name))
    return tuple(
        f"{item.host_address}:{item.host} -> {item.guest}/{item.protocol}"
        for item in sorted(there, key=lambda item: item.host)
    )


def _drift(observed: Observed, record: records.Record | None) -> tuple[str, ...]:
    current = observed.current
    found = list(plan.drifted(observed))
    if current is not None and current.digest != current.machine.digest:
        found.append("the domain is not the one that vmctl defined: a field was changed")
    if record is not None and current is not None and record.digest != current.digest:
        found.append("the domain was not defined from the store's record of it")
    return tuple(found)
