"""A slot that a job may have, as the supervisor tells it to whoever claims it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

from vmctl.guest.ssh import Access

_PATHS = ("key", "known_hosts")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """How a slot's guest is reached; `key` names the saved state that it came from.

    `generation` tells this life of the guest from those before: each job has one of its own.
    """

    machine: str
    access: Access
    generation: str
    key: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        access = dataclasses.asdict(self.access)
        return {
            "machine": self.machine,
            "access": {**access, **{name: os.fspath(access[name]) for name in _PATHS}},
            "generation": self.generation,
            "key": self.key,
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
        )
