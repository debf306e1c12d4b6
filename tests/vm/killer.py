"""Runs vmctl and kills it with SIGKILL at the n-th thing it does to the world.

python killer.py N before|after COMMAND…: counts every call that changes libvirt or the disk
(define, start, rename, unlink, …) and dies right before or after the n-th one. When there are
fewer than N, vmctl runs to its end.
"""

from __future__ import annotations

import functools
import itertools
import os
import pathlib
import signal
import sys
from collections.abc import Callable
from typing import Any

import libvirt
import libvirt_qemu

CHANGES: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (
        libvirt.virConnect,
        ("defineXMLFlags", "networkDefineXML", "createXML"),
    ),
    (
        libvirt.virDomain,
        ("create", "destroy", "undefineFlags", "setAutostart", "suspend", "resume", "shutdown"),
    ),
    (libvirt.virDomain, ("createWithFlags", "fsFreeze", "fsThaw", "managedSave")),
    (
        libvirt.virDomain,
        (
            *("setMemoryFlags", "setVcpusFlags", "attachDeviceFlags", "detachDeviceFlags"),
            *("updateDeviceFlags", "blockResize", "setMetadata", "setBlockIoTune"),
        ),
    ),
    (libvirt.virDomain, ("backupBegin", "abortJob")),
    (libvirt.virDomainCheckpoint, ("delete",)),
    (libvirt.virNetwork, ("create", "destroy", "undefine", "update")),
    (libvirt_qemu, ("qemuMonitorCommand",)),
    (pathlib.Path, ("rename", "replace", "unlink", "mkdir", "rmdir", "chmod")),
    (os, ("rename", "replace", "unlink", "chown", "link")),
)


def arm(when: int, moment: str) -> None:
    """Wrap every call so that the `when`-th one is the last."""
    numbers = itertools.count(1)

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            mine = next(numbers) == when
            if mine and moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*arguments, **keywords)
            finally:  # a call that fails, as rmdir of a full directory, counts as well
                if mine:
                    os.kill(os.getpid(), signal.SIGKILL)

        return wrapper

    for owner, names in CHANGES:
        for name in names:
            setattr(owner, name, deadly(getattr(owner, name)))


if __name__ == "__main__":
    arm(int(sys.argv[1]), sys.argv[2])
    from vmctl.cli import main

    sys.argv = ["vmctl", *sys.argv[3:]]
    main()
