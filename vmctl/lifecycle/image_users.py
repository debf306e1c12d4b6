"""Which machines use which image: by their disks, their definition, and what is being made of them.

No single source is enough. A record may be lost while the disk is there; a machine without a disk
is known to libvirt alone; and one that is only being made is in neither, but has an intent.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator

from vmctl import errors
from vmctl.hypervisor import bulk
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor.connection import Connection
from vmctl.images import chain
from vmctl.images.chain import Chain
from vmctl.store import files
from vmctl.store.layout import Layout

_BELOW = re.compile(r"([0-9a-f]{64})/")


@dataclasses.dataclass(frozen=True, slots=True)
class Disk:
    """A disk in the store: whose it is, what lies below it, and on which image it ends."""

    machine: str
    name: str
    chain: Chain
    digest: str


@dataclasses.dataclass(frozen=True, slots=True)
class Users:
    """Machines by the digests that they use, and the disks of all machines.

    `unclear` names machines of which it cannot be told what they use.
    """

    by_digest: dict[str, tuple[str, ...]]
    disks: tuple[Disk, ...]
    unclear: tuple[str, ...]

    def of(self, digest: str) -> tuple[str, ...]:
        """Return the machines that use an image, sorted."""
        return self.by_digest.get(digest, ())


def find(layout: Layout, connection: Connection | None) -> Users:
    """Return who uses what; without a connection, what the store alone can tell."""
    found: dict[str, set[str]] = {}
    disks = list(_disks(layout))
    for disk in disks:
        found.setdefault(disk.digest, set()).add(disk.machine)
    for machine, digest in _recorded(layout):
        found.setdefault(digest, set()).add(machine)
    defined = dict(bulk.definitions(connection)) if connection is not None else {}
    for machine, xml in defined.items():
        for digest in _mentioned(layout, xml):
            found.setdefault(digest, set()).add(machine)
    found.pop("", None)
    unclear = {
        disk.machine
        for disk in disks
        if disk.chain.problem and not disk.digest and disk.machine not in defined
    }
    by_digest = {digest: tuple(sorted(machines)) for digest, machines in found.items()}
    return Users(by_digest, tuple(disks), tuple(sorted(unclear)))


def known(layout: Layout, uri: str | None) -> Users:
    """Return who uses what, as far as it can be told without starting anything.

    Where libvirt cannot be reached, the store alone is asked.
    """
    try:
        with connections.opened(uri, layout) as connection:
            return find(layout, connection)
    except errors.VmctlError:
        return find(layout, None)


def _disks(layout: Layout) -> Iterator[Disk]:
    for path in sorted(layout.machines.glob("*/**/*.qcow2")):
        below = chain.follow(path, layout.home)
        digest = next(_mentioned(layout, below.end), "")
        machine = path.relative_to(layout.machines).parts[0]
        yield Disk(machine, path.stem, below, digest)


def _recorded(layout: Layout) -> Iterator[tuple[str, str]]:
    """Yield what records and intents say: these are written before anything else."""
    for path in sorted(layout.machines.glob("*/*.json")):
        if path.name in ("machine.json", "intent.json", "released.json"):
            data = files.read_json(path) or {}
            yield path.parent.name, str(data.get("image_digest", ""))


def _mentioned(layout: Layout, text: str) -> Iterator[str]:
    """Yield the images of this store whose files a text names."""
    prefix = f"{os.path.abspath(layout.images)}/"
    for piece in text.split(prefix)[1:]:
        match = _BELOW.match(piece)
        if match:
            yield match[1]
