"""Names of throw-away machines: the smallest free number, held by a lock as long as the run lives.

Numbers come again, so that locks, UUIDs and addresses do not pile up. The store's id is in the
name: machines of several stores meet on one libvirt. What a killed run left under a name is removed
by whoever comes next, and nothing of a run that lives is ever touched: the lock tells.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

from vmctl import errors
from vmctl.lifecycle import execute, removal
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.store import files, home, locks, records
from vmctl.store.layout import Layout

_LOCK = "run"


def prefix(layout: Layout) -> str:
    """Return how the names of this store's runs begin."""
    return f"run-{home.opened(layout)[:6]}-"


def lives(layout: Layout, name: str) -> bool:
    """Tell whether the vmctl of a run is still there."""
    return locks.held(layout.lock(_LOCK, name))


@contextlib.contextmanager
def held(site: Site, worker: Worker) -> Iterator[str]:
    """Hold a name for the length of the block; whatever was left under it is removed first."""
    beginning = prefix(site.layout)
    for number in itertools.count(1):
        name = f"{beginning}{number}"
        with contextlib.ExitStack() as stack:
            try:
                lock = site.layout.lock(_LOCK, name)
                stack.enter_context(locks.hold(lock, None, f"Run '{name}'"))
            except errors.ConflictError:
                continue
            if _freed(site, name, worker):
                yield name
                return


def _freed(site: Site, name: str, worker: Worker) -> bool:
    """Tell whether nothing is there under a name any more; what cannot be removed keeps it."""
    try:
        return _free(site, name, worker)
    except (errors.ConflictError, OSError):
        return False


def clear(site: Site, worker: Worker) -> None:
    """Remove what killed runs of this store left: their guests if they still run, their files.

    What cannot be removed now stays for the next run, or for `vmctl gc`.
    """
    beginning = prefix(site.layout)
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(site.layout.machines)):
            if not name.startswith(beginning) or not _dead(site.layout, name):
                continue
            with contextlib.suppress(errors.VmctlError, OSError):
                lock = site.layout.lock(_LOCK, name)
                with locks.hold(lock, None, f"Run '{name}'"):
                    _free(site, name, worker)


def _dead(layout: Layout, name: str) -> bool:
    place = layout.machine(name)
    record = records.read(place)
    kept = record is not None and not record.transient
    return not kept and not lives(layout, name)


def _free(site: Site, name: str, worker: Worker) -> bool:
    """Have nothing be there under a name whose lock is held.

    False where a machine was kept, or is another libvirt's.
    """
    place = site.layout.machine(name)
    record = records.read(place)
    if record is None and not place.directory.is_dir():
        return True
    if record is not None and not (record.transient and record.uri == site.connection.uri):
        return False
    with execute.locked(site, name) as observed:
        if observed.exists or observed.files:
            removal.remove(site, observed, worker, with_kept=True)
        else:
            # Killed between its first two files.
            for entry in (*files.temporaries(place.directory), *place.directory.iterdir()):
                entry.unlink(missing_ok=True)
            place.directory.rmdir()
    return True
