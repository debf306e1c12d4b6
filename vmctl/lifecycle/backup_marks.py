"""What backups leave with a machine: bitmaps of what was written since, and an unfinished one.

QEMU puts no snapshot back into a disk that has a bitmap, and what the bitmap says would be wrong
afterwards: they go first, and the next backup is a full one.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.hypervisor import backups as jobs
from vmctl.hypervisor import domains
from vmctl.hypervisor import snapshots as monitor
from vmctl.images import bitmaps
from vmctl.lifecycle.steps import Site
from vmctl.machine.backups import PREFIX
from vmctl.machine.model import DiskFormat, Machine
from vmctl.machine.state import State
from vmctl.store import records

_SECONDS = 60.0


def undo(site: Site, name: str, machine: Machine) -> None:
    """Remove what there is of a backup that was begun and not finished; the machine goes on.

    One that was finished but for its last step stays. The caller holds the machine's lock.
    """
    place = site.layout.machine(name)
    intent = records.intent(place)
    finished = pathlib.Path(str(intent.get("final", ""))).is_dir()
    draft = str(intent.get("draft", ""))
    domain = domains.find(site.connection, name)
    if domain is not None:
        jobs.abort(domain, draft, Deadline.after(_SECONDS))
        if not finished and intent.get("checkpoint"):
            forget(site, machine, {str(intent["checkpoint"])})
        if intent.get("thaw") and domains.state(domain)[0] is State.RUNNING:
            monitor.thaw(domain)
    shutil.rmtree(draft, ignore_errors=True)
    records.finish(place)


def require_own(site: Site, machine: Machine) -> None:
    """Raise ConflictError where others record changes of a machine's disks, which vmctl leaves."""
    domain = domains.get(site.connection, machine.name)
    found = set(jobs.checkpoints(domain)) | _inside(site, machine)
    foreign = sorted(name for name in found if not name.startswith(PREFIX))
    if foreign:
        raise errors.ConflictError(
            f"Other hands record changes of the disks of machine '{machine.name}' "
            f"('{foreign[0]}'), and QEMU puts nothing back into such disks.",
            hint="If nobody needs it, while the machine runs: virsh checkpoint-delete "
            f"{machine.name} {foreign[0]}",
        )


def drop(site: Site, machine: Machine) -> bool:
    """Remove all that was recorded for backups; tells whether there was anything."""
    domain = domains.get(site.connection, machine.name)
    found = set(jobs.checkpoints(domain)) | _inside(site, machine)
    own = {name for name in found if name.startswith(PREFIX)}
    if own:
        forget(site, machine, own)
    return bool(own)


def drop_broken(site: Site, machine: Machine) -> None:
    """Remove what a killed QEMU did not close: it is worthless, and keeps disks from growing."""
    domain = domains.get(site.connection, machine.name)
    found = jobs.bitmaps(domain).values()
    broken = {name for there in found for name, sound in there.items() if not sound}
    own = {name for name in broken if name.startswith(PREFIX)}
    if own:
        forget(site, machine, own)


def _inside(site: Site, machine: Machine) -> set[str]:
    """Return the names of the bitmaps in the machine's disks."""
    domain = domains.get(site.connection, machine.name)
    if domains.state(domain)[0].active:
        return {name for names in jobs.bitmaps(domain).values() for name in names}
    deadline = Deadline.after(_SECONDS)
    return {name for path in _images(machine) for name in bitmaps.names(path, deadline)}


def forget(site: Site, machine: Machine, names: set[str]) -> None:
    """Delete checkpoints and their bitmaps, also of a machine that does not run."""
    domain = domains.get(site.connection, machine.name)
    jobs.forget(domain, sorted(names))
    if domains.state(domain)[0].active:
        for node, there in jobs.bitmaps(domain).items():
            for name in names.intersection(there):
                with contextlib.suppress(errors.HypervisorError):
                    jobs.remove_bitmap(domain, node, name)
        return
    deadline = Deadline.after(_SECONDS)
    for path in _images(machine):
        for name in names.intersection(bitmaps.names(path, deadline)):
            bitmaps.remove(path, name, deadline)


def _images(machine: Machine) -> list[str]:
    there = [disk for disk in machine.disks if disk.format is DiskFormat.QCOW2]
    return [disk.file for disk in there if pathlib.Path(disk.file).exists()]
