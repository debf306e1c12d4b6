"""Waits until a machine is what its spec calls ready, and tells ssh where it is."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import readiness, ssh
from vmctl.hypervisor import domains
from vmctl.lifecycle import access
from vmctl.lifecycle.steps import Site
from vmctl.machine.model import Machine, NicKind
from vmctl.machine.state import State
from vmctl.store import files, locks, records

_NOTE_SECONDS = 2.0
_NO_WAY = (
    errors.ConflictError,
    errors.NotFoundError,
    errors.UsageError,
    errors.WaitTimeoutError,
)
"""What `access` raises for a machine that ssh cannot reach, or not now."""


def until_ready(
    site: Site,
    machine: Machine,
    deadline: Deadline,
    seen: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> None:
    """Wait for what the machine's `ready` says, and remember that it came."""
    place = site.layout.machine(machine.name)
    domain = domains.get(site.connection, machine.name)
    record = records.read(place)
    same_run = record is not None and record.boot_id in (domain.ID(), -1)
    was_ready = record is not None and same_run and record.ready
    if was_ready and domains.state(domain)[0] is State.RUNNING:
        return
    offset = record.boot_offset if record is not None and same_run else 0
    ways = readiness.Ways(
        state=lambda: domains.state(domain),
        access=(lambda: _access(site, machine.name)) if _reachable(machine) else None,
        agent=lambda limit: _agent_answers(site, machine.name, limit),
    )
    try:
        readiness.Watch(machine, offset, ways).wait(deadline, seen, cancelled)
    finally:
        # Whoever wants to see why a guest is not ready needs it, too.
        if machine.user:
            write_ssh_config(site, machine.name)
    if same_run:
        _remember_ready(site, machine.name, domain.ID())


@contextlib.contextmanager
def ended_is_said(site: Site, machine: Machine) -> Iterator[None]:
    """Raise GuestError where the block fails because the guest has ended meanwhile."""
    try:
        yield
    except errors.HypervisorError:
        state, reason = domains.state(domains.get(site.connection, machine.name))
        if state.active:
            raise
        raise errors.GuestError(
            f"Machine '{machine.name}' failed: the guest ended before it was ready "
            f"({reason or state}).",
            hint=f"Read the whole console: vmctl logs {machine.name}",
        ) from None


def _access(site: Site, name: str) -> ssh.Access | None:
    """Return how ssh reaches a machine; None while it has no address, or does not run."""
    try:
        return access.find(site.connection, site.layout, name)
    except (errors.ConflictError, errors.WaitTimeoutError):
        # Whether it still runs is looked at more closely elsewhere.
        return None


def _reachable(machine: Machine) -> bool:
    """Tell whether the host can know an address of the machine: on a bridge only a fixed one."""
    cards = (nic for nic in machine.nics if nic.kind is not NicKind.BRIDGE or nic.address)
    return bool(machine.user) and any(cards)


def _agent_answers(site: Site, name: str, deadline: Deadline) -> bool:
    # Needed by few machines.
    from vmctl.hypervisor import agent

    return agent.answers(site.connection, name, deadline)


def write_ssh_config(site: Site, name: str) -> None:
    """Write what ~/.ssh/config can include, unless it says so already; fine where ssh has no way.

    Raises HostError where the store cannot be written.
    """
    path = site.layout.machine(name).ssh_config
    with contextlib.suppress(*_NO_WAY):
        text = ssh.config(access.find(site.connection, site.layout, name))
        with contextlib.suppress(OSError):
            if path.read_text() == text:
                return
        files.write(path, text.encode())


def _remember_ready(site: Site, name: str, run: int) -> None:
    """Note that a run became ready, unless another vmctl has begun to change the machine."""
    place = site.layout.machine(name)
    lock = site.layout.lock("machine", name)
    with (
        contextlib.suppress(errors.ConflictError),
        locks.hold(lock, Deadline.after(_NOTE_SECONDS), name),
    ):
        record = records.read(place)
        if record is not None and record.boot_id in (run, -1):
            records.write(place, dataclasses.replace(record, boot_id=run, ready=True))
