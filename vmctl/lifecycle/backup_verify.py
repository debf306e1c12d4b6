"""Looks at backups: whether all that they need is there, whole, and refers to nothing else."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

from vmctl import errors
from vmctl.images import copies
from vmctl.lifecycle import backup as making
from vmctl.lifecycle import schedule
from vmctl.lifecycle.events import Event
from vmctl.lifecycle.schedule import Worker
from vmctl.store import backups as shelves
from vmctl.store.backups import Backup, Shelf
from vmctl.store.layout import Layout


def run(name: str, backup: str, to: pathlib.Path | None) -> Iterator[Event]:
    """Verify a backup with all that it needs, or every backup of a machine for no name.

    Raises RefusedError for the first that cannot be restored, with all others in its details.
    """
    layout = Layout.default()
    shelf = shelves.shelf(layout, to, name)
    require_any(shelf)

    def work(_: str, worker: Worker) -> None:
        with making.hold(layout, shelf):
            if backup:
                found = shelves.chain(shelf, shelves.resolved(shelf, backup))
                for each in reversed(found):
                    verify(shelf, each, worker)
            else:
                _every(shelf, worker)

    yield from schedule.carry_out([name], {}, work)


def require_any(shelf: Shelf) -> None:
    """Raise NotFoundError where there is no backup at all."""
    if not shelf.names:
        raise errors.NotFoundError(
            f"There is no backup of machine '{shelf.machine}' in '{shelf.directory}'.",
            hint=f"Make one: vmctl backup create {shelf.machine}",
        )


def _every(shelf: Shelf, worker: Worker) -> None:
    wrong: dict[str, errors.VmctlError] = {}
    for name in shelf.names:
        try:
            needed = shelves.chain(shelf, name)
            # What is wrong is not opened, also not for those that need it.
            broken = next((each.name for each in needed if each.name in wrong), None)
            if broken is not None:
                raise errors.RefusedError(f"Backup '{name}' needs '{broken}', which is damaged.")
            verify(shelf, needed[0], worker)
        except (errors.RefusedError, errors.NotFoundError) as problem:
            wrong[name] = problem
    if wrong:
        first, *others = wrong.values()
        listing = "\n".join(f"also: {problem}" for problem in others)
        first.details = f"{first.details}\n{listing}".strip()
        raise first


def verify(shelf: Shelf, backup: Backup, worker: Worker) -> None:
    """Verify one backup, those that it needs having been verified. Raises RefusedError."""
    place = shelf.place(backup.name)
    with worker.step(f"verify {backup.name}", patient=True) as progress:
        for copy in backup.disks:
            path = place.file(copy.file)
            below = shelves.below(shelf, backup.parent, copy.name)
            told = _telling(progress, copy.name)
            found = copies.digest(path, told)
            _require_digest(path, found, copy.digest)
            copies.require_header(path, below, copy.size)
            copies.require_sound(path, told)
        if backup.nvram:
            _require_digest(place.nvram, copies.digest(place.nvram), backup.nvram)


def _telling(progress: Callable[..., None], disk: str) -> copies.Told:
    return lambda done, total: progress(note=disk, done=done, total=total)


def _require_digest(path: pathlib.Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise errors.RefusedError(
            f"'{path}' is not what was backed up: its sha256 is {found}, and should be {wanted}.",
            hint="Use another backup: vmctl backup list",
        )
