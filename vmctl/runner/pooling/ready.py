"""A slot that a job may have, as the supervisor tells it to whoever claims it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

from vmctl.guest.ssh import Access
from vmctl.store import records
from vmctl.store.layout import Layout

_PATHS = ("key", "known_hosts")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """How a slot's guest is reached; `key` names the saved state that it came from.

    `generation` tells this life of the guest from those before: each job has one of its own.
    `stamp` tells whether other commands worked on the machine since.
    """

    machine: str
    access: Access
    generation: str
    key: str
    stamp: str = ""

    def untouched(self, layout: Layout) -> bool:
        """Tell whether nobody worked on the machine since it was made ready."""
        intent = records.intent(layout.machine(self.machine))
        return not intent and stamp(layout, self.machine) == self.stamp

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        access = dataclasses.asdict(self.access)
        return {
            "machine": self.machine,
            "access": {**access, **{name: os.fspath(access[name]) for name in _PATHS}},
            "generation": self.generation,
            "key": self.key,
            "stamp": self.stamp,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Ready:
        """Return what `as_dict` wrote. Raises KeyError and TypeError for other data."""
        access = {**data["access"]}
        access |= {name: pathlib.Path(access[name]) for name in _PATHS}
        return cls(
            machine=data["machine"],
            access=Access(**access),
            generation=data["generation"],
            key=data["key"],
            stamp=data.get("stamp", ""),
        )


def stamp(layout: Layout, machine: str) -> str:
    """Return what is another one after a restore, a release or a removal: they write the record."""
    try:
        found = layout.machine(machine).record.stat()
    except OSError:
        return ""
    return f"{found.st_ino}-{found.st_mtime_ns}"
