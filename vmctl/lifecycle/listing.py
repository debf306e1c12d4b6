"""What `status` shows: everything about one machine."""

from __future__ import annotations

import dataclasses
from typing import Any

from vmctl import errors
from vmctl.guest import console_log
from vmctl.hypervisor import domains, monitor, networks
from vmctl.hypervisor.connection import Connection
from vmctl.lifecycle import access, holding, observe, provision, removal
from vmctl.lifecycle.holding import Holding
from vmctl.machine import change, plan
from vmctl.machine.model import Accel, Display, Machine, NicKind
from vmctl.machine.observed import Observed
from vmctl.machine.state import State
from vmctl.machine.xml import display as display_xml
from vmctl.store import records, snapshots
from vmctl.store.layout import Layout


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """One machine in full; `accel` is what the running QEMU says, not what was asked for."""

    machine: Machine
    state: State
    reason: str
    ready: bool
    accel: str
    display: str
    addresses: tuple[str, ...]
    forwards: tuple[str, ...]
    drift: tuple[str, ...]
    pending: tuple[str, ...]
    interrupted: str
    spec: str
    login: str
    why: str
    provisioned: str = ""
    snapshots: int = 0
    snapshot: str = ""
    holding: Holding = dataclasses.field(default_factory=Holding)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        data = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("machine", "holding")
        }
        held = self.holding.as_dict()
        return {"name": self.machine.name, **data, **held, "machine": self.machine.as_dict()}


def details(connection: Connection, layout: Layout, name: str, *, closely: bool = False) -> Details:
    """Return all about one machine; `closely` with what holds it: limits, cgroups, namespaces.

    Raises NotFoundError, ConflictError for a foreign domain.
    """
    observed = observe.observe(connection, layout, name)
    removal.refuse_foreign(observed)
    if observed.current is None:
        raise errors.NotFoundError(
            f"Machine '{name}' has files in the store, but libvirt has no domain of that name "
            f"({observed.intent or 'it was removed by other hands'}).",
            hint=f"Make it again with vmctl up SPEC, or clear it with vmctl down {name}.",
        )
    machine = observed.running or observed.current.machine
    record = records.read(layout.machine(name))
    running = observed.state.active and connection.real
    domain = domains.get(connection, name)
    tree = snapshots.glance(layout.machine(name))
    return Details(
        machine=machine,
        state=observed.state,
        reason=observed.reason or (_panic(machine, layout, record) if running else ""),
        ready=running and record is not None and record.ready and record.boot_id == domain.ID(),
        accel=_accel(connection, name) if running else "",
        display=_display(connection, machine) if running else "",
        addresses=_addresses(connection, machine) if running else (),
        forwards=_forwards(connection, machine) if running else (),
        drift=_drift(observed, record),
        pending=tuple(str(difference) for difference in change.pending(observed)),
        interrupted=observed.intent,
        spec=record.spec if record else "",
        login=record.login if record else "",
        why=record.why if record else "",
        provisioned=_provisioned(connection, layout, observed),
        snapshots=len(tree.snapshots),
        snapshot=tree.current,
        holding=holding.look(connection, observed) if closely else Holding(),
    )


def _provisioned(connection: Connection, layout: Layout, observed: Observed) -> str:
    """Say how far the provision steps are; a guest in memory forgets them when it stops."""
    assert observed.current is not None
    machine = observed.current.machine
    if not machine.provision:
        return ""
    record = records.read(layout.machine(machine.name))
    run = access.run_of(connection, observed, record) if observed.state.active else ""
    return provision.progress(layout, machine, run).value


def _panic(machine: Machine, layout: Layout, record: records.Record | None) -> str:
    """Say what the console shows of a panic: without a panic device the guest seems to run on."""
    since = record.boot_offset if record else 0
    words = console_log.panic(layout.machine(machine.name).console_log, since)
    return f"the guest panicked: {words}" if words else ""


def _display(connection: Connection, machine: Machine) -> str:
    if machine.display is Display.NONE:
        return ""
    port = display_xml.read_port(domains.live_xml(connection, machine.name))
    return f"vnc://{display_xml.LOOPBACK}:{port}" if port else ""


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
