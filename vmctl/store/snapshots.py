"""What the store remembers of a machine's snapshots: their tree, and what each one needs.

The data itself lies inside the disk images, under the snapshot's name.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterator
from typing import Any

from vmctl import errors
from vmctl.store import files
from vmctl.store.layout import MachineFiles

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""The grammar of a snapshot's name: that of a machine's (RFC 1123). It is part of file names."""


class Kind(enum.StrEnum):
    """What a snapshot holds."""

    MEMORY = "memory"
    DISKS = "disks"
    OFFLINE = "offline"

    @property
    def text(self) -> str:
        """What people read."""
        return {
            Kind.MEMORY: "disks and memory",
            Kind.DISKS: "disks, while it runs",
            Kind.OFFLINE: "disks, stopped",
        }[self]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A named point in a machine's life.

    `created` in seconds since the epoch, `memory` in bytes as stored. `running` says that the
    guest ran, `quiesced` that its file systems were frozen by its agent. `origin` is what vmctl
    made it for by itself (restore, up), empty where a person asked for it.
    """

    name: str
    kind: Kind
    parent: str = ""
    created: float = 0.0
    running: bool = False
    quiesced: bool = False
    memory: int = 0
    origin: str = ""
    comment: str = ""


_FIELDS = frozenset(field.name for field in dataclasses.fields(Snapshot))


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    """All snapshots of a machine, the oldest first; `current` is the one it goes on from."""

    snapshots: tuple[Snapshot, ...] = ()
    current: str = ""

    @property
    def names(self) -> list[str]:
        """The names, the oldest first."""
        return [snapshot.name for snapshot in self.snapshots]

    def find(self, name: str) -> Snapshot | None:
        """Return a snapshot by its name."""
        return next((each for each in self.snapshots if each.name == name), None)

    def added(self, snapshot: Snapshot) -> Tree:
        """Return the tree with a snapshot of now: a child of the current one."""
        grown = dataclasses.replace(snapshot, parent=self.current)
        return Tree((*self.snapshots, grown), snapshot.name)

    def at(self, name: str) -> Tree:
        """Return the tree of a machine that has gone back to a snapshot."""
        return dataclasses.replace(self, current=name)

    def without(self, name: str) -> Tree:
        """Return the tree without a snapshot; its children become those of its parent."""
        gone = self.find(name)
        if gone is None:
            return self
        left = tuple(
            dataclasses.replace(each, parent=gone.parent) if each.parent == name else each
            for each in self.snapshots
            if each.name != name
        )
        return Tree(left, gone.parent if self.current == name else self.current)

    def ordered(self) -> Iterator[tuple[int, Snapshot]]:
        """Yield depth and snapshot, parents before children, siblings by age."""
        names, seen = set(self.names), set[str]()

        def below(parent: str, depth: int) -> Iterator[tuple[int, Snapshot]]:
            for each in self.snapshots:
                root = each.parent not in names
                if each.name not in seen and (each.parent == parent or (not parent and root)):
                    seen.add(each.name)
                    yield depth, each
                    yield from below(each.name, depth + 1)

        yield from below("", 0)
        # Parents in a circle, which only a damaged file has.
        yield from ((0, each) for each in self.snapshots if each.name not in seen)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """What the machine was at a snapshot.

    `xml` is its definition, `hardware` the digest of what QEMU ran, `record` what `ps` showed,
    `files` the text of small files of its directory, `run` names the run of the guest,
    `agent` says that its agent was connected.
    """

    xml: str
    hardware: str = ""
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    run: str = ""
    agent: bool = False


_DETAILS = frozenset(field.name for field in dataclasses.fields(Detail))


def read(place: MachineFiles) -> Tree:
    """Return a machine's snapshots; none where there is no file of them.

    Raises RefusedError for a file that cannot be read: it is not to be written over.
    """
    data = files.read_json(place.snapshots)
    if data is None and not place.snapshots.exists():
        return Tree()
    try:
        found = tuple(_snapshot(item) for item in (data or {})["snapshots"])
    except (TypeError, ValueError, KeyError, AttributeError):
        raise errors.RefusedError(
            f"The file '{place.snapshots}' is damaged: it says which snapshots there are.",
            hint="The disks are whole. Move it away to go on without what it said; "
            f"see what is there: qemu-img snapshot -l {place.directory}/DISK.qcow2",
        ) from None
    return Tree(found, str((data or {}).get("current", "")))


def glance(place: MachineFiles) -> Tree:
    """Return a machine's snapshots as far as they can be read; cheap where it has none."""
    try:
        return read(place)
    except errors.RefusedError:
        return Tree()


def _snapshot(item: dict[str, Any]) -> Snapshot:
    known = {key: value for key, value in item.items() if key in _FIELDS}
    return Snapshot(**{**known, "kind": Kind(known["kind"])})


def count(place: MachineFiles) -> int:
    """Return how many snapshots a machine has; cheap where it has none."""
    return len(glance(place).snapshots)


def write(place: MachineFiles, tree: Tree) -> None:
    """Remember a machine's snapshots."""
    data = {
        "current": tree.current,
        "snapshots": [dataclasses.asdict(each) for each in tree.snapshots],
    }
    files.write_json(place.snapshots, data)


def read_detail(place: MachineFiles, name: str) -> Detail | None:
    """Return what the machine was at a snapshot, or None when that is lost."""
    data = files.read_json(place.snapshot(name))
    if data is None or not data.get("xml"):
        return None
    return Detail(**{key: value for key, value in data.items() if key in _DETAILS})


def write_detail(place: MachineFiles, name: str, detail: Detail) -> None:
    """Remember what the machine is at a snapshot."""
    files.write_json(place.snapshot(name), dataclasses.asdict(detail))


def forget_files(place: MachineFiles, name: str) -> None:
    """Remove the small files of a snapshot."""
    files.remove(place.snapshot_nvram(name))
    files.remove(place.snapshot(name))
