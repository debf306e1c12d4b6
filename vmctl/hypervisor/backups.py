"""Backups of running guests: libvirt's backup job, and the checkpoints that record what changes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import Any

import libvirt
import libvirt_qemu

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.hypervisor import failures
from vmctl.hypervisor.connection import in_turn

_POLL = 0.02
_OPERATION = "operation"
_GONE = {
    libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT,
    libvirt.VIR_ERR_NO_DOMAIN,
    libvirt.VIR_ERR_OPERATION_INVALID,
}
_UNTOLD = {libvirt.VIR_ERR_NO_DOMAIN_BACKUP, *_GONE}


class ChangesLostError(errors.HypervisorError):
    """Libvirt does not know any more what was written since a checkpoint."""


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a backup is, in bytes; `over` once there is no job any more."""

    done: int
    total: int
    over: bool


@in_turn
def checkpoints(domain: libvirt.virDomain) -> list[str]:
    """Return the names of all checkpoints of a domain, whoever made them."""
    with failures.translated(f"list the checkpoints of machine '{domain.name()}'"):
        return sorted(str(each.getName()) for each in domain.listAllCheckpoints())


@in_turn
def begin(domain: libvirt.virDomain, order: str, checkpoint: str) -> None:
    """Begin a backup into images that are there already, and set a checkpoint at its moment.

    Raises ChangesLostError where an incremental one is not possible any more, ConflictError where
    another backup runs, HostError where QEMU cannot write.
    """
    try:
        domain.backupBegin(order, checkpoint, libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL)
    except libvirt.libvirtError as problem:
        raise _refusal(domain.name(), problem) from None


def _refusal(name: str, problem: libvirt.libvirtError) -> errors.VmctlError:
    number, text = failures.code(problem), str(problem)
    if number in (libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT, libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT):
        return ChangesLostError(f"What changed in machine '{name}' is not known: {text}.")
    if "Could not open" in text and "No such file" in text:
        return errors.HostError(
            f"QEMU does not see the directory that machine '{name}' is to be backed up to: it was "
            "mounted after the machine was started.",
            hint=f"Start the machine again (vmctl restart {name}), or back up into the store and "
            "copy that.",
            details=text,
        )
    if "another job" in text or "cannot acquire state change lock" in text:
        return _busy(name, text)
    return failures.translate(problem, f"back up machine '{name}'")


def _busy(name: str, details: str = "") -> errors.ConflictError:
    return errors.ConflictError(
        f"Libvirt is busy with another job of machine '{name}'.",
        hint=f"See which: virsh domjobinfo {name}",
        details=details,
    )


def require_none(domain: libvirt.virDomain) -> None:
    """Raise ConflictError where a backup runs already, whoever began it: there is one at a time."""
    if not progress(domain).over:
        raise _busy(domain.name())


@in_turn
def progress(domain: libvirt.virDomain) -> Progress:
    """Return how far the backup is; that of a machine that has ended is over."""
    try:
        found = domain.jobStats()
    except libvirt.libvirtError as problem:
        if failures.code(problem) in _GONE:
            return Progress(0, 0, over=True)
        doing = f"ask how far the backup of machine '{domain.name()}' is"
        raise failures.translate(problem, doing) from None
    if found.get(_OPERATION) != libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
        return Progress(0, 0, over=True)
    return Progress(
        int(found.get(libvirt.VIR_DOMAIN_JOB_DISK_PROCESSED, 0)),
        int(found.get(libvirt.VIR_DOMAIN_JOB_DISK_TOTAL, 0)),
        over=False,
    )


@in_turn
def require_success(domain: libvirt.virDomain, where: str) -> None:
    """Raise for a backup that has ended badly: HostError for a full disk, else HypervisorError."""
    name, found = domain.name(), {}
    with contextlib.suppress(libvirt.libvirtError):
        # A machine that has ended cannot be asked.
        found = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    if found.get(_OPERATION) == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP and found.get(
        libvirt.VIR_DOMAIN_JOB_SUCCESS
    ):
        return
    why = str(found.get(libvirt.VIR_DOMAIN_JOB_ERRMSG, "")) or "libvirt does not say why"
    if "No space left" in why or "quota" in why:
        raise errors.HostError(
            f"There is no room for the backup of machine '{name}' in '{where}': {why}.",
            hint="Free some disk space, or put it elsewhere: vmctl backup create --to DIRECTORY",
        )
    raise errors.HypervisorError(
        f"The backup of machine '{name}' ended before it was whole: {why}.",
        hint="If the machine was stopped meanwhile, back it up as it is now.",
    )


def abort(domain: libvirt.virDomain, directory: str, deadline: Deadline) -> None:
    """End the backup that writes into a directory, and wait until it has ended.

    Fine where none does; one of somebody else's goes on.
    """
    while not progress(domain).over:
        places = _directories(domain)
        if places is not None and directory not in places:
            return
        if places is not None:
            # Asked again: an end that had just begun by itself is no error.
            with contextlib.suppress(libvirt.libvirtError):
                domain.abortJob()
        if deadline.passed:
            raise errors.WaitTimeoutError(
                f"The backup of machine '{domain.name()}' did not end within "
                f"{deadline.seconds:.0f} s."
            )
        deadline.pause(_POLL)


@in_turn
def _directories(domain: libvirt.virDomain) -> set[str] | None:
    """Return where the backup that runs writes to; None while libvirt does not tell.

    It has a job before it says what that does: whose it is must not be guessed then.
    """
    try:
        text = domain.backupGetXMLDesc()
    except libvirt.libvirtError as problem:
        if failures.code(problem) in _UNTOLD:
            return None
        doing = f"ask where the backup of machine '{domain.name()}' is written to"
        raise failures.translate(problem, doing) from None
    root = ET.fromstring(text)  # noqa: S314  (libvirt's own output; its parser refuses entities)
    targets = (each.get("file") for each in root.iterfind("disks/disk/target"))
    return {os.path.dirname(file) for file in targets if file}


@in_turn
def forget(domain: libvirt.virDomain, names: Iterable[str]) -> None:
    """Delete checkpoints and what was recorded since; fine for those that are gone or broken.

    Of a domain that does not run only libvirt's own note is deleted: the bitmaps stay in the disks.
    """
    for name in names:
        try:
            checkpoint = domain.checkpointLookupByName(name)
        except libvirt.libvirtError as problem:
            if failures.code(problem) in _GONE:
                continue
            raise failures.translate(problem, f"delete checkpoint '{name}'") from None
        try:
            checkpoint.delete()
        except libvirt.libvirtError:
            with failures.translated(f"delete checkpoint '{name}' of '{domain.name()}'"):
                checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)


@in_turn
def bitmaps(domain: libvirt.virDomain) -> dict[str, dict[str, bool]]:
    """Return the bitmaps in a running guest's disks and whether they are sound, by image.

    One is not that QEMU did not close: what was written meanwhile is missing in it. The images are
    given by QEMU's name of them.
    """
    return {
        str(node["node-name"]): {
            str(each.get("name", "")): not each.get("inconsistent") for each in found
        }
        for node in _ask(domain, "query-named-block-nodes", flat=True)
        if (found := node.get("dirty-bitmaps"))
    }


def usable(domain: libvirt.virDomain) -> set[str]:
    """Return the checkpoints since which all that was written is known."""
    there = list(bitmaps(domain).values())
    sound = {name for found in there for name, whole in found.items() if whole}
    broken = {name for found in there for name, whole in found.items() if not whole}
    return (sound - broken).intersection(checkpoints(domain))


@in_turn
def remove_bitmap(domain: libvirt.virDomain, node: str, name: str) -> None:
    """Remove a bitmap from a running guest's disk; a broken one too, which libvirt does not."""
    _ask(domain, "block-dirty-bitmap-remove", node=node, name=name)


def _ask(domain: libvirt.virDomain, command: str, **arguments: object) -> list[dict[str, Any]]:
    text = json.dumps({"execute": command, "arguments": arguments})
    with failures.translated(f"reach QEMU's monitor of machine '{domain.name()}'"):
        answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, text, 0))
    if "error" in answer:
        why = str(answer["error"].get("desc", ""))
        raise errors.HypervisorError(
            f"QEMU refused {command} for machine '{domain.name()}': {why}."
        )
    found = answer["return"]
    return found if isinstance(found, list) else []
