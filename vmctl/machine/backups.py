"""Which kind of backup is possible, said before anything is touched. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection

from vmctl import errors
from vmctl.machine.model import DiskFormat, Machine
from vmctl.machine.state import State
from vmctl.store.backups import LONGEST, Backup, Kind

PREFIX = "vmctl-"
"""Begins the names of vmctl's own checkpoints, and of their bitmaps in the disks."""


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """The backup that will be made; `why` says why it is not incremental, if it could be."""

    kind: Kind
    parent: str = ""
    since: str = ""
    why: str = ""


def checkpoints_of(directory: str) -> str:
    """Return how the names of the checkpoints begin that belong to backups in a directory."""
    return f"{PREFIX}{hashlib.sha256(directory.encode()).hexdigest()[:8]}-"


def refuse(machine: Machine, state: State) -> None:
    """Raise, with the way out, for a machine that no backup can be made of."""
    _refuse_state(machine, state)
    if not machine.disks:
        raise errors.UsageError(
            f"Machine '{machine.name}' has no disk: there is nothing to back up.",
            hint=f"Keep its memory: vmctl snapshot create {machine.name} NAME",
        )
    for disk in machine.disks:
        if disk.external or disk.format is not DiskFormat.QCOW2:
            kind = "not vmctl's own" if disk.external else disk.format.value
            raise errors.UsageError(
                f"Disk '{disk.name}' of machine '{machine.name}' is {kind}: what changes on it "
                "cannot be recorded.",
                hint=f"Copy it while the machine is stopped: qemu-img convert -O qcow2 "
                f"'{disk.file}' COPY.qcow2",
            )
    if machine.tpm:
        raise errors.UsageError(
            f"Machine '{machine.name}' has a TPM, whose state no other machine can have.",
            hint=f"Copy the files that matter: vmctl cp {machine.name}:PATH .",
        )


def _refuse_state(machine: Machine, state: State) -> None:
    if state is State.SAVED:
        raise errors.ConflictError(
            f"Machine '{machine.name}' is saved: its disks belong to the memory that lies beside.",
            hint=f"Let it go on first: vmctl start {machine.name}",
        )
    if state not in (State.RUNNING, State.PAUSED, State.STOPPED):
        raise errors.ConflictError(
            f"Machine '{machine.name}' is {state}: a backup is made of one that runs, is paused or "
            "is stopped.",
            hint=f"See its state: vmctl status {machine.name}",
        )


def decide(
    machine: Machine,
    before: list[Backup],
    *,
    uuid: str,
    active: bool,
    checkpoints: Collection[str] = (),
    full: bool = False,
) -> Decision:
    """Return the backup to make of a machine, given the ones `before` it (the oldest first).

    `checkpoints` are those that libvirt has of a running one: what was written since is known of
    them. A stopped one is compared with its last backup instead.
    """
    if full or not before:
        return Decision(Kind.FULL)
    own = [each for each in before if each.uuid == uuid]
    if not own:
        return Decision(Kind.FULL, why="the backups before are of an earlier machine of this name")
    usable = [each for each in own if not active or each.checkpoint in checkpoints]
    usable = [each for each in usable if each.checkpoint or not active]
    if not usable:
        return Decision(
            Kind.FULL,
            why="what was written since the last backup is not known (its newest backup was "
            "deleted, it was made anew or went back to a snapshot, or QEMU was killed)",
        )
    last = usable[-1]
    if [copy.name for copy in last.disks] != [disk.name for disk in machine.disks]:
        return Decision(Kind.FULL, why="it has other disks than at the last backup")
    if depth(own, last) >= LONGEST:
        return Decision(Kind.FULL, why=f"{LONGEST} backups already need one another")
    return Decision(Kind.INCREMENTAL, parent=last.name, since=last.checkpoint if active else "")


def depth(backups: list[Backup], last: Backup) -> int:
    """Return how many backups a backup needs, itself included; broken chains are endless."""
    by_name = {each.name: each for each in backups}
    number = 1
    while last.parent:
        if last.parent not in by_name or number > len(backups):
            return LONGEST
        last, number = by_name[last.parent], number + 1
    return number
