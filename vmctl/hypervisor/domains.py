"""Domains: looked up, defined, started, stopped. Each call is one thing libvirt does."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import libvirt

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.hypervisor import bulk, failures, monitor
from vmctl.hypervisor.connection import Connection, in_turn
from vmctl.machine.state import State
from vmctl.machine.xml.element import METADATA

_POLL = 0.05
_PRESS_EVERY = 5.0
_STALE_WHILE_LEAVING = {libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN}


@in_turn
def find(connection: Connection, name: str) -> libvirt.virDomain | None:
    """Return libvirt's handle of a domain, or None."""
    try:
        return connection.handle.lookupByName(name)
    except libvirt.libvirtError as problem:
        if failures.code(problem) == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise failures.translate(problem, f"look for machine '{name}'") from None


@in_turn
def names(connection: Connection) -> list[str]:
    """Return the names of all domains, whosoever they are, sorted."""
    with failures.translated("list the machines"):
        return sorted(domain.name() for domain in connection.handle.listAllDomains())


def get(connection: Connection, name: str) -> libvirt.virDomain:
    """Return libvirt's handle of a domain; raises NotFoundError."""
    domain = find(connection, name)
    if domain is None:
        raise errors.NotFoundError(
            f"There is no machine '{name}' on {connection.uri}.", hint="See all: vmctl ps --all"
        )
    return domain


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A domain's inactive XML and what libvirt keeps beside it."""

    xml: str
    autostart: bool
    saved: bool
    persistent: bool


@in_turn
def definition(domain: libvirt.virDomain) -> Definition | None:
    """Return how a domain is defined, or None when it vanished meanwhile."""
    try:
        persistent = bool(domain.isPersistent())
        return Definition(
            xml=domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE),
            autostart=bool(domain.autostart()) if persistent else False,
            saved=bool(domain.hasManagedSaveImage()) if persistent else False,
            persistent=persistent,
        )
    except libvirt.libvirtError as problem:
        if failures.code(problem) == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise failures.translate(problem, f"read machine '{domain.name()}'") from None


@in_turn
def live_xml(connection: Connection, name: str) -> str:
    """Return the XML of a domain as it runs."""
    with failures.translated(f"read machine '{name}'"):
        return str(get(connection, name).XMLDesc())


@in_turn
def inactive_xml(connection: Connection, name: str) -> str:
    """Return the XML of a domain as it is defined; raises NotFoundError."""
    with failures.translated(f"read machine '{name}'"):
        return str(get(connection, name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))


@in_turn
def state(domain: libvirt.virDomain) -> tuple[State, str]:
    """Return the state and its reason; a domain that vanished is absent.

    A guest that KVM gave up on shows as paused for an unknown reason; QEMU itself says
    internal-error.
    """
    try:
        number, reason = domain.state()
        if number == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_UNKNOWN:
            status = monitor.status(domain)
            if status == "internal-error":
                return State.FAILED, "KVM could not run the guest (internal error)"
        if number == libvirt.VIR_DOMAIN_SHUTOFF and domain.hasManagedSaveImage():
            return State.SAVED, "saved to disk"
    except libvirt.libvirtError as problem:
        if failures.code(problem) == libvirt.VIR_ERR_NO_DOMAIN:
            return State.ABSENT, ""
        raise failures.translate(problem, f"ask for the state of '{domain.name()}'") from None
    reason_text = bulk.REASONS.get((number, reason), "")
    if (number, reason_text) == (libvirt.VIR_DOMAIN_PAUSED, "the guest panicked"):
        return State.CRASHED, reason_text
    return bulk.STATES.get(number, State.STOPPED), reason_text


def define(connection: Connection, xml: str, *, autostart: bool) -> libvirt.virDomain:
    """Define a domain, checked against libvirt's schema first."""
    with failures.translated("define the machine"):
        domain = connection.handle.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        if bool(domain.autostart()) != autostart:
            domain.setAutostart(int(autostart))
    return domain


def start(domain: libvirt.virDomain) -> None:
    """Start a domain, or restore it from its saved state; fine if it runs already."""
    name = domain.name()
    try:
        domain.create()
    except libvirt.libvirtError as problem:
        if failures.code(problem) == libvirt.VIR_ERR_OPERATION_INVALID and domain.isActive():
            return
        raise failures.translate(problem, f"start machine '{name}'") from None


def pause(domain: libvirt.virDomain) -> None:
    """Stop the guest's processors; the QEMU process stays."""
    with failures.translated(f"pause machine '{domain.name()}'"):
        domain.suspend()


def resume(domain: libvirt.virDomain) -> None:
    """Let a paused guest go on; fine if it runs already.

    A guest that somebody else is starting is paused at first, too.
    """
    name = domain.name()
    try:
        domain.resume()
    except libvirt.libvirtError as problem:
        running = domain.isActive() and domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        if failures.code(problem) == libvirt.VIR_ERR_OPERATION_INVALID and running:
            return
        raise failures.translate(problem, f"resume machine '{name}'") from None


def shut_down(domain: libvirt.virDomain, deadline: Deadline, cancelled: Callable[[], bool]) -> bool:
    """Press the power button (ACPI) until the guest is off; returns False at the deadline.

    It is pressed again every few seconds: a guest that is still booting misses the first time.
    Raises InterruptError when cancelled; the guest may stop all the same.
    """
    press = Deadline.after(0)
    while True:
        if press.passed:
            with _leaving(domain, "stop"):
                domain.shutdown()
            press = Deadline.after(_PRESS_EVERY)
        now, _ = state(domain)
        if not now.active:
            return True
        if deadline.passed:
            return False
        if cancelled():
            raise errors.InterruptError("Interrupted; the guest was asked to stop.")
        deadline.pause(_POLL)


def force_off(domain: libvirt.virDomain) -> None:
    """Pull the plug: QEMU is asked to end and killed if it does not; fine if it is off."""
    with _leaving(domain, "force off"):
        domain.destroy()


def label(domain: libvirt.virDomain, text: str, *, live: bool = False) -> None:
    """Put our own element, given without a namespace, into a domain; an empty one takes it out.

    Nothing else of the domain changes. `live` is for the running one, which keeps its own.
    """
    kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    where = libvirt.VIR_DOMAIN_AFFECT_LIVE if live else libvirt.VIR_DOMAIN_AFFECT_CONFIG
    with failures.translated(f"write the metadata of '{domain.name()}'"):
        domain.setMetadata(kind, text or None, "vmctl" if text else None, METADATA, where)


def undefine(domain: libvirt.virDomain, *, others: bool = False) -> None:
    """Remove the definition with all that libvirt keeps for it; fine if it is gone.

    UEFI variables and the TPM's state stay where `others` made the domain.
    """
    flags = (
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    )
    flags |= libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM if others else libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    # The flag is new in libvirt 8.9; an older one refuses it, so that it is tried first.
    tpm = "VIR_DOMAIN_UNDEFINE_KEEP_TPM" if others else "VIR_DOMAIN_UNDEFINE_TPM"
    flags_with_tpm = flags | getattr(libvirt, tpm, 0)
    for chosen in (flags_with_tpm, flags):
        try:
            domain.undefineFlags(chosen)
        except libvirt.libvirtError as problem:
            number = failures.code(problem)
            if number == libvirt.VIR_ERR_NO_DOMAIN:
                return
            if number == libvirt.VIR_ERR_INVALID_ARG and chosen != flags:
                continue
            raise failures.translate(problem, f"remove machine '{domain.name()}'") from None
        return


@contextlib.contextmanager
def _leaving(domain: libvirt.virDomain, doing: str) -> Iterator[None]:
    """Take an error from a guest that was just ending by itself as success."""
    try:
        yield
    except libvirt.libvirtError as problem:
        if failures.code(problem) in _STALE_WHILE_LEAVING and not _active(domain):
            return
        raise failures.translate(problem, f"{doing} machine '{domain.name()}'") from None


def _active(domain: libvirt.virDomain) -> bool:
    try:
        return bool(domain.isActive())
    except libvirt.libvirtError:
        return False
