"""Restarts a guest between two provision steps; a kill at any point is put right by the next `up`.

For everything else it is a new run of the machine: it is waited for until it is ready, its mounts
are made again, and no connection of before is used.
"""

from __future__ import annotations

import dataclasses

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import console_log, reboot, ssh
from vmctl.guest.ssh import Access
from vmctl.lifecycle import sharing, waiting
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine.model import Machine
from vmctl.store import inside, locks, records
from vmctl.store.inside import Inside
from vmctl.store.layout import MachineFiles

_END_SECONDS = 90.0
"""How long a guest may take to end on real hardware: systemd's own limit for a service."""

_REACH_SECONDS = 60.0
_LOCK_SECONDS = 10.0


def carry_out(site: Site, machine: Machine, access: Access, worker: Worker) -> Access:
    """Restart the guest, or finish what was begun, and return the way in afterwards.

    Raises GuestError, WaitTimeoutError, ConflictError, InterruptError.
    """
    place = site.layout.machine(machine.name)
    deadline = Deadline.after(machine.ready.timeout + _END_SECONDS * access.patience)
    with worker.step("reboot", patient=True) as progress:
        known = inside.read(place)
        resumed = known.leaving
        if not resumed:
            known = _remember(place, access, deadline)
        if not resumed or reboot.number(access, deadline) == known.leaving:
            reboot.tell(access, lambda: worker.cancelled)
        ssh.disconnect(access)
        reboot.wait(access, known.leaving, deadline, lambda: worker.cancelled)
        _begin_run(site, machine.name, known.console)
        waiting.until_ready(site, machine, deadline, progress, lambda: worker.cancelled)
    inside.write(place, dataclasses.replace(inside.read(place), leaving="", console=0, mounted=""))
    sharing.mount_inside(site, machine, worker)
    limit = Deadline.after(_REACH_SECONDS * access.patience)
    return sharing.reach(site, machine.name, limit, worker)


def _remember(place: MachineFiles, access: Access, deadline: Deadline) -> Inside:
    """Keep which start of the guest is to end, and where its console is then."""
    number = reboot.number(access, deadline)
    if not number:
        raise errors.GuestError(
            f"The guest of machine '{access.name}' does not say which of its starts this is, so "
            "that a restart could not be told.",
            hint=f"Try it yourself: vmctl exec {access.name} -- cat "
            "/proc/sys/kernel/random/boot_id",
        )
    console = console_log.size(place.console_log)
    known = dataclasses.replace(inside.read(place), leaving=number, console=console)
    inside.write(place, known)
    return known


def _begin_run(site: Site, name: str, console: int) -> None:
    """Have the store know that another run began, as `steps.start` does."""
    place = site.layout.machine(name)
    lock = site.layout.lock("machine", name)
    with locks.hold(lock, Deadline.after(_LOCK_SECONDS), f"Machine '{name}'"):
        record = records.read(place)
        # It may have been stopped and started since by other hands.
        if record is not None and record.boot_offset < console:
            records.write(place, dataclasses.replace(record, boot_offset=console, ready=False))
