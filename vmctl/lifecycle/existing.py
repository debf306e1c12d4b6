"""Disks that were there before their machine: looked at before a guest gets them."""

from __future__ import annotations

import os
import pathlib
import stat

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.hypervisor import domains
from vmctl.hypervisor.connection import Connection
from vmctl.images import qcow2
from vmctl.machine.model import Disk, Machine
from vmctl.machine.xml import disk as disk_xml

_SECONDS = 120.0


def require(connection: Connection, machine: Machine) -> None:
    """Raise for a disk that is not there, or that may not be opened.

    Those that the machine has already are as they are. Raises NotFoundError, RefusedError where one
    refers to other files, ConflictError where another process writes to it, HostError.
    """
    disks = [disk for disk in machine.disks if disk.external]
    if not disks:
        return
    domain = domains.find(connection, machine.name)
    definition = domains.definition(domain) if domain is not None else None
    known = disk_xml.sources(definition.xml) if definition is not None else frozenset()
    for disk in disks:
        if disk.file not in known:
            _require(machine, disk)


def _require(machine: Machine, disk: Disk) -> None:
    path = pathlib.Path(disk.file)
    try:
        mode = path.stat().st_mode
    except OSError as problem:
        raise errors.NotFoundError(
            f"Disk '{disk.name}' of machine '{machine.name}' should be '{path}': "
            f"{problem.strerror}.",
            hint="Make it first, or take it out of the spec.",
        ) from None
    if stat.S_ISBLK(mode):
        _require_block(path, disk)
    else:
        # Rare, and dear to import.
        from vmctl.images import gate

        gate.admit(path, disk.format, Deadline.after(_SECONDS))


def _require_block(path: pathlib.Path, disk: Disk) -> None:
    if not os.access(path, os.R_OK | os.W_OK):
        raise errors.HostError(
            f"You may not write to the block device '{path}'.", hint="Run as root: sudo vmctl up …"
        )
    found = qcow2.info(path, disk.format, Deadline.after(_SECONDS))
    if found.backing or found.data_file:
        raise errors.RefusedError(
            f"The disk on '{path}' refers to another file, '{found.backing or found.data_file}', "
            "which could be any file of this host.",
            hint="Make one of both: qemu-img convert",
        )
