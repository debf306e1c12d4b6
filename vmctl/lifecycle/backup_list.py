"""What `backup list` tells: the manifests, held against the files that are there."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from vmctl import errors
from vmctl.lifecycle import backup_verify
from vmctl.store import backups as shelves
from vmctl.store.backups import Backup, Shelf
from vmctl.store.layout import Layout


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A backup among those of its machine; `problem` says why it cannot be restored.

    `needs` are the backups below it, the nearest first.
    """

    depth: int
    backup: Backup
    directory: str
    needs: tuple[str, ...] = ()
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON; nothing of what the machine was."""
        backup = self.backup
        return {
            "name": backup.name,
            "kind": backup.kind,
            "parent": backup.parent,
            "created": backup.created,
            "running": backup.running,
            "quiesced": backup.quiesced,
            "bytes": backup.bytes,
            "comment": backup.comment,
            "needs": list(self.needs),
            "directory": self.directory,
            "disks": [dataclasses.asdict(copy) for copy in backup.disks],
            "problem": self.problem,
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The backups of one machine; `broken` are those that cannot even be read, with the reason."""

    machine: str
    directory: str
    entries: tuple[Entry, ...]
    broken: tuple[tuple[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            "machine": self.machine,
            "directory": self.directory,
            "backups": [entry.as_dict() for entry in self.entries],
            "broken": [{"name": name, "problem": problem} for name, problem in self.broken],
        }


def listings(names: Sequence[str], to: pathlib.Path | None) -> list[Listing]:
    """Return the backups of machines, of all for no names, whether the machines exist or not.

    Raises NotFoundError for a name that has none.
    """
    layout = Layout.default()
    if to is not None and not to.is_dir():
        raise errors.NotFoundError(
            f"There is no directory '{to}'.", hint="Leave --to out to see those in the store."
        )
    found = []
    for name in names or shelves.machines(layout, to):
        shelf = shelves.shelf(layout, to, name)
        backup_verify.require_any(shelf)
        found.append(_listing(shelf))
    return found


def _listing(shelf: Shelf) -> Listing:
    readable, broken = [], []
    for name in shelf.names:
        try:
            readable.append(shelves.read(shelf, name))
        except errors.VmctlError as problem:
            broken.append((name, problem.message))
    return Listing(
        machine=shelf.machine,
        directory=str(shelf.directory),
        entries=tuple(_entry(shelf, depth, each) for depth, each in shelves.ordered(readable)),
        broken=tuple(broken),
    )


def _entry(shelf: Shelf, depth: int, backup: Backup) -> Entry:
    needs: tuple[str, ...] = ()
    problem = ""
    try:
        chain = shelves.chain(shelf, backup.name)
        needs = tuple(each.name for each in chain[1:])
        problem = next((found for each in chain if (found := _lost(shelf, each))), "")
    except errors.VmctlError as refusal:
        problem = refusal.message
    return Entry(
        depth=depth,
        backup=backup,
        directory=str(shelf.place(backup.name).directory),
        needs=needs,
        problem=problem,
    )


def _lost(shelf: Shelf, backup: Backup) -> str:
    """Return what is seen to be wrong without reading the images."""
    for copy in backup.disks:
        path = shelf.place(backup.name).file(copy.file)
        try:
            size = os.stat(path, follow_symlinks=False).st_size
        except OSError as problem:
            return f"'{path}' cannot be read: {problem.strerror}"
        if size != copy.bytes:
            return f"'{path}' has {size} bytes, and should have {copy.bytes}"
    return ""
