"""Removes backups. Those that need a removed one get what they need of it first, and stay whole."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator

from vmctl import errors
from vmctl.images import copies
from vmctl.lifecycle import backup as making
from vmctl.lifecycle import backup_verify, schedule
from vmctl.lifecycle.events import Event
from vmctl.lifecycle.schedule import Worker
from vmctl.store import backups as shelves
from vmctl.store.backups import Backup, Copy, Kind, Shelf
from vmctl.store.layout import Layout


def meant(name: str, backup: str, to: pathlib.Path | None) -> str:
    """Return the name of the backup of a machine that a word means, `latest` for one.

    Raises NotFoundError, RefusedError for one that cannot be read.
    """
    shelf = shelves.shelf(Layout.default(), to, name)
    return shelves.read(shelf, shelves.resolved(shelf, backup)).name


def delete(name: str, backup: str, to: pathlib.Path | None) -> Iterator[Event]:
    """Delete one backup of a machine, by its own name; every other one stays what it is."""
    layout = Layout.default()
    shelf = shelves.shelf(layout, to, name)
    # A word would mean another one once somebody has made or deleted one meanwhile.
    yield from _removed(layout, shelf, lambda: [shelves.read(shelf, backup).name])


def prune(name: str, keep: int, to: pathlib.Path | None) -> Iterator[Event]:
    """Delete all but the newest `keep` backups of a machine."""
    layout = Layout.default()
    shelf = shelves.shelf(layout, to, name)
    backup_verify.require_any(shelf)
    yield from _removed(layout, shelf, lambda: shelf.names[: max(0, len(shelf.names) - keep)])


def _removed(layout: Layout, shelf: Shelf, chosen: Callable[[], list[str]]) -> Iterator[Event]:
    def work(_: str, worker: Worker) -> None:
        with making.hold(layout, shelf):
            # The newest first: what nobody needs any more is not copied.
            for each in reversed(chosen()):
                _remove(shelf, each, worker)

    yield from schedule.carry_out([shelf.machine], {}, work)


def _remove(shelf: Shelf, name: str, worker: Worker) -> None:
    _require_known(shelf, name)
    for child in shelves.children(shelf, name):
        gone = shelves.read(shelf, name)
        backup_verify.verify(shelf, gone, worker)
        backup_verify.verify(shelf, child, worker)
        with worker.step(f"let {child.name} stand without it", patient=True) as progress:
            told = _telling(progress)
            _lift(shelf, child, gone, told)
    with worker.step(f"delete {name}"):
        shelves.remove(shelf, name)


def _require_known(shelf: Shelf, name: str) -> None:
    """Raise RefusedError for what is no backup, and where a newer one may need this one unseen."""
    place = shelf.place(name)
    if not place.manifest.is_file():
        raise errors.RefusedError(
            f"'{place.directory}' does not say that it is a backup: it has no "
            f"'{place.manifest.name}'.",
            hint=f"If nobody needs it: rm -r '{place.directory}'",
        )
    told = {backup.name for backup in shelves.readable(shelf)}
    untold = next((each for each in shelf.names if each > name and each not in told), None)
    if untold is not None:
        other = shelf.place(untold)
        raise errors.RefusedError(
            f"Backup '{untold}' of machine '{shelf.machine}' may need '{name}': its file "
            f"'{other.manifest}' cannot be read.",
            hint=f"Put that file right; or, if nobody needs it: rm -r '{other.directory}'",
        )


def _telling(progress: Callable[..., None]) -> copies.Told:
    return lambda done, total: progress(done=done, total=total)


def _lift(shelf: Shelf, child: Backup, gone: Backup, told: copies.Told) -> None:
    """Give a backup images that need the parent's parent, or none."""
    place = shelf.place(child.name)
    made = {}
    try:
        for copy in child.disks:
            source, target = place.file(copy.file), place.beside(copy.file)
            made[copy.name] = target
            if gone.parent:
                below = shelves.below(shelf, gone.parent, copy.name)
                copies.changes(str(source), copy.size, below, target, told)
            else:
                copies.whole(str(source), target, told)
            making.keep(target)
            copies.require_same(str(source), str(target), told)
        lifted = dataclasses.replace(
            child,
            kind=Kind.INCREMENTAL if gone.parent else Kind.FULL,
            parent=gone.parent,
            disks=tuple(_described(copy, made[copy.name]) for copy in child.disks),
        )
    except BaseException:
        for path in made.values():
            path.unlink(missing_ok=True)
        raise
    shelves.lift(place, lifted)


def _described(copy: Copy, path: pathlib.Path) -> Copy:
    size, digest = path.stat().st_size, copies.digest(path)
    return dataclasses.replace(copy, bytes=size, digest=digest)
