"""A machine in a mode as it would be, also where this host cannot run it: for explaining."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from vmctl.hypervisor import connection as connections
from vmctl.lab import field
from vmctl.lifecycle import workspace
from vmctl.machine import resolve
from vmctl.machine.model import Disk, Machine, Mode
from vmctl.spec import load
from vmctl.store.layout import Layout


def machine(path: pathlib.Path, mode: Mode, *, uri: str | None) -> Machine:
    """Return the spec's machine in a mode; changes nothing, and nobody asks whether KVM works."""
    document = load.load(path, field.SETS[mode])
    around = workspace.surroundings(
        Layout.default(), uri or connections.default_uri(), create_store=False
    )
    willing = dataclasses.replace(around.kvm, usable=True)
    found = resolve.resolve(document, dataclasses.replace(around, kvm=willing))[0]
    if found.disks:
        return found
    # Without a disk the tour would have nothing to show at its most telling stop.
    file = os.fspath(around.layout.machine(found.name).disk("data"))
    storage = around.storage
    disk = Disk(
        name="data",
        file=file,
        size=1 << 30,
        direct=storage.direct,
        aio=storage.aio if found.virtio else "threads",
    )
    return dataclasses.replace(found, disks=(disk,))
