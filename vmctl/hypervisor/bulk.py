"""All domains in one call."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import libvirt

from vmctl.hypervisor import failures
from vmctl.hypervisor.connection import Connection
from vmctl.machine.state import State

STATES = {
    libvirt.VIR_DOMAIN_RUNNING: State.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: State.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: State.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: State.STOPPING,
    libvirt.VIR_DOMAIN_SHUTOFF: State.STOPPED,
    libvirt.VIR_DOMAIN_CRASHED: State.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: State.PAUSED,
}
REASONS = {
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED): "QEMU ended unexpectedly",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED): "it failed to start",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED): "forced off",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN): "shut down",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SAVED): "saved",
    (libvirt.VIR_DOMAIN_CRASHED, libvirt.VIR_DOMAIN_CRASHED_PANICKED): "the guest panicked",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER): "paused by hand",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR): (
        "a disk cannot be written (is the host's disk full?)"
    ),
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_CRASHED): "the guest panicked",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP): "starting",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One domain of a bulk listing; `numbers` are libvirt's statistics."""

    name: str
    uuid: str
    id: int
    state: State
    reason: str
    numbers: dict[str, Any]


def summaries(connection: Connection, *, statistics: bool = False) -> list[Summary]:
    """Return all domains with one call; with `statistics` their usage too.

    NOWAIT: a domain that is busy with a long job would block the call for 30 s.
    """
    wanted = libvirt.VIR_DOMAIN_STATS_STATE
    if statistics:
        wanted |= (
            libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
            | libvirt.VIR_DOMAIN_STATS_BALLOON
            | libvirt.VIR_DOMAIN_STATS_VCPU
        )
    with failures.translated("list the machines"):
        if not connection.real:
            return [_summary(domain, {}) for domain in connection.handle.listAllDomains()]
        flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        found = connection.handle.getAllDomainStats(wanted, flags)
        return [_summary(domain, numbers) for domain, numbers in found]


def _summary(domain: libvirt.virDomain, numbers: dict[str, Any]) -> Summary:
    number, reason = numbers.get("state.state"), numbers.get("state.reason", 0)
    if number is None:
        number, reason = domain.state()
    text = REASONS.get((number, reason), "")
    state = State.SAVED if text == "saved" else STATES.get(number, State.STOPPED)
    return Summary(
        name=domain.name(),
        uuid=domain.UUIDString(),
        id=domain.ID(),
        state=state,
        reason=text,
        numbers=numbers,
    )


def definitions(connection: Connection) -> list[tuple[str, str]]:
    """Return name and inactive XML of all domains, whoever made them.

    One that vanishes meanwhile is left out. A transient domain has no inactive XML: then it is the
    one that runs.
    """
    found = []
    with failures.translated("list the machines"):
        domains = connection.handle.listAllDomains()
    for domain in domains:
        with contextlib.suppress(libvirt.libvirtError):
            flags = libvirt.VIR_DOMAIN_XML_INACTIVE if domain.isPersistent() else 0
            found.append((domain.name(), domain.XMLDesc(flags)))
    return found
