"""What is done in a guest that is ready: the way in is found, and its mounts are made."""

from __future__ import annotations

import dataclasses

from vmctl import errors
from vmctl.deadline import TCG_PATIENCE, Deadline
from vmctl.guest import mounts as guest_mounts
from vmctl.guest import signs
from vmctl.guest.ssh import Access
from vmctl.hypervisor import agent
from vmctl.lifecycle import access as accesses
from vmctl.lifecycle import observe
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine.model import Accel, Machine
from vmctl.store import inside, records

_REACH_SECONDS = 60.0
_MOUNT_SECONDS = 60.0
_AGENT_SECONDS = 5.0
_POLL = 0.1


def reach(site: Site, name: str, deadline: Deadline, worker: Worker) -> Access:
    """Return the way into a machine once somebody answers there.

    Raises what `lifecycle.access` raises for a machine that has none, WaitTimeoutError at the
    deadline.
    """
    greeting = signs.Greeting()
    try:
        while True:
            try:
                access = accesses.find(site.connection, site.layout, name)
            except errors.WaitTimeoutError:
                if deadline.passed:
                    raise
            else:
                if greeting.heard(access.host, access.port):
                    return access
                if deadline.passed:
                    raise errors.WaitTimeoutError(
                        f"Machine '{name}' did not answer ssh at {access.host} port {access.port} "
                        f"within {deadline.seconds:g} s.",
                        hint=f"See what it does: vmctl logs {name}",
                    )
            if worker.cancelled:
                raise errors.InterruptError("Interrupted; the machine goes on running.")
            deadline.pause(_POLL)
    finally:
        greeting.close()


def patience(machine: Machine) -> int:
    """Return the factor on deadlines of what happens inside a machine's guest."""
    return TCG_PATIENCE if machine.accel is Accel.TCG else 1


def mount_inside(site: Site, wanted: Machine, worker: Worker) -> None:
    """Make a ready machine's mounts in its guest, unless that was done in this run.

    Over ssh, else through the guest agent; a guest without either is left to its owner, who is
    told the commands. Raises GuestError
    where the guest cannot mount.
    """
    name = wanted.name
    place = site.layout.machine(name)
    known = inside.read(place)
    if not (wanted.mounts or known.places):
        return
    # It may run with others than those of the spec, until its next start.
    observed = observe.observe(site.connection, site.layout, name)
    machine = observed.running
    if machine is None:
        return
    run = accesses.run_of(site.connection, observed, records.read(place))
    places = tuple(mount.guest for mount in machine.mounts)
    if (known.mounted, known.places) == (run, places):
        return
    try:
        deadline = Deadline.after(_REACH_SECONDS * patience(machine))
        access = reach(site, name, deadline, worker)
    except (errors.UsageError, errors.ConflictError) as problem:
        if not _mounted_through_agent(site, machine, worker):
            _tell_commands(machine, problem, worker)
            return
    else:
        with worker.step("mounts"):
            deadline = Deadline.after(_MOUNT_SECONDS * patience(machine))
            guest_mounts.over_ssh(access, machine.mounts, deadline)
    inside.write(place, dataclasses.replace(inside.read(place), mounted=run, places=places))


def _mounted_through_agent(site: Site, machine: Machine, worker: Worker) -> bool:
    """Make the mounts of a guest that no ssh leads to; False where nobody answers."""
    if not agent.answers(site.connection, machine.name, Deadline.after(_AGENT_SECONDS)):
        return False
    with worker.step("mounts"):
        deadline = Deadline.after(_MOUNT_SECONDS * patience(machine))
        guest_mounts.through_agent(site.connection, machine.name, machine.mounts, deadline)
    return True


def _tell_commands(machine: Machine, problem: errors.VmctlError, worker: Worker) -> None:
    if machine.mounts:
        worker.note(
            "warning",
            f"its mounts were not made: {problem.message}",
            f"At its console: {guest_mounts.by_hand(machine.mounts)}",
        )
