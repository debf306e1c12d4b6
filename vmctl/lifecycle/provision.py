"""Provision steps: carried out once, in order, when the machine is ready."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

from vmctl.deadline import Deadline
from vmctl.guest import provision
from vmctl.guest.ssh import Access
from vmctl.lifecycle import reboot, sharing
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine.model import Machine
from vmctl.machine.payload import Step
from vmctl.store import inside, locks, records
from vmctl.store.inside import Inside
from vmctl.store.layout import Layout

_REACH_SECONDS = 60.0


class Provision(enum.StrEnum):
    """Which steps `up` carries out."""

    MISSING = "missing"
    ALL = "all"
    NONE = "none"


class Progress(enum.StrEnum):
    """How far a machine's provisioning is, as `status` shows it."""

    NOTHING = ""
    YES = "yes"
    NO = "no"
    FAILED = "failed"


def carry_out(site: Site, machine: Machine, which: Provision, worker: Worker) -> None:
    """Carry out the steps of a spec that have not run yet.

    A step that ran does not run again until asked, even if its text changed: that is said. A step
    that failed, or that was cut off by a kill, is where it goes on. Raises GuestError,
    WaitTimeoutError and ConflictError (another vmctl is at it).
    """
    wanted = machine.payload.steps if machine.payload is not None else ()
    if not wanted or which is Provision.NONE:
        return
    place = site.layout.machine(machine.name)
    if which is Provision.MISSING:
        record = records.read(place)
        command = f"vmctl up --provision {record.spec if record else ''}".strip()
        if not _due(machine, wanted, inside.read(place), worker, command):
            return
    lock = site.layout.lock("provision", machine.name)
    with locks.hold(lock, None, f"Provisioning of machine '{machine.name}'"):
        deadline = Deadline.after(_REACH_SECONDS * sharing.patience(machine))
        access = sharing.reach(site, machine.name, deadline, worker)
        known = _of_this_run(machine, inside.read(place), access.run)
        if which is Provision.ALL:
            known = dataclasses.replace(known, steps=(), complete=False, leaving="")
        first = provision.first_to_run(wanted, known.steps, complete=known.complete)
        known = dataclasses.replace(known, run=access.run)
        if known.leaving:
            inside.write(place, known)
            access, known = _restarted(site, machine, access, worker)
        _run(site, machine, access, wanted, first, known, worker)


def _due(
    machine: Machine, wanted: Sequence[Step], known: Inside, worker: Worker, command: str
) -> bool:
    """Tell whether there may be something to do, and say which steps changed since they ran."""
    for step in provision.changed(wanted, known.steps, complete=known.complete):
        worker.note(
            "warning",
            f"provision step '{step.name}' is not the one that ran (not done again by itself)",
            f"Carry all of them out again: {command}",
        )
    return _forgets(machine) or not known.complete


def _forgets(machine: Machine) -> bool:
    """Tell whether a guest lives in memory alone, so that each start is its first."""
    return machine.image is not None and not machine.image.disk


def _of_this_run(machine: Machine, known: Inside, run: str) -> Inside:
    if _forgets(machine) and known.run != run:
        return dataclasses.replace(known, steps=(), complete=False, failed="")
    return known


def _restarted(
    site: Site, machine: Machine, access: Access, worker: Worker
) -> tuple[Access, Inside]:
    """Restart the guest; return the new way in, and what is remembered now."""
    access = reboot.carry_out(site, machine, access, worker)
    known = inside.read(site.layout.machine(machine.name))
    return access, dataclasses.replace(known, run=access.run, failed="")


def _run(
    site: Site,
    machine: Machine,
    access: Access,
    wanted: Sequence[Step],
    first: int,
    known: Inside,
    worker: Worker,
) -> None:
    place = site.layout.machine(access.name)
    for number, step in enumerate(wanted[first:], start=first + 1):
        # Until it has succeeded it counts as failed: a kill leaves no word of its own.
        known = dataclasses.replace(
            known, steps=known.steps[: number - 1], complete=False, failed=step.name
        )
        inside.write(place, known)
        title = f"provision {number}/{len(wanted)} {step.name}"
        with worker.step(title, patient=True) as progress:
            log = place.provision_log(number)
            provision.run(access, step, log, progress, lambda: worker.cancelled)
        steps = (*known.steps, provision.digest(step))
        if step.reboot:
            inside.write(place, dataclasses.replace(known, steps=steps))
            access, known = _restarted(site, machine, access, worker)
        known = dataclasses.replace(known, steps=steps, failed="")
    if not known.complete:
        inside.write(place, dataclasses.replace(known, complete=True, failed=""))


def progress(layout: Layout, machine: Machine, run: str = "") -> Progress:
    """Return how far a machine is; `run` names its present one, empty for a stopped machine."""
    if not machine.provision:
        return Progress.NOTHING
    known = _of_this_run(machine, inside.read(layout.machine(machine.name)), run)
    if known.failed:
        return Progress.FAILED
    return Progress.YES if known.complete else Progress.NO
