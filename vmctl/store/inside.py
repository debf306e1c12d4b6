"""What vmctl has done inside a guest: remembered, so that it is not done twice."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from vmctl.store import files
from vmctl.store.layout import MachineFiles


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What was done in a guest; runs are named as `lifecycle.access` does.

    `mounted` is the run in which the mounts were made, `places` are those that the guest's fstab
    may still name. `steps` are the digests of the provision steps that were carried out, in their
    order, `run` is the run that they were done in; `complete` says that they were all, `failed`
    is the name of the one that failed last. `leaving` is the number of the guest's start that a
    restart between two steps is to end, empty where there is none under way, `console` how long
    the console log was then (bytes).
    """

    mounted: str = ""
    places: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    run: str = ""
    complete: bool = False
    failed: str = ""
    leaving: str = ""
    console: int = 0


_FIELDS = frozenset(field.name for field in dataclasses.fields(Inside))


def write(place: MachineFiles, inside: Inside) -> None:
    """Remember what was done in a machine's guest."""
    files.write_json(place.inside, dataclasses.asdict(inside))


def read(place: MachineFiles) -> Inside:
    """Return what is remembered; nothing where there is nothing that can be read."""
    return _known(files.read_json(place.inside))


def parse(text: str) -> Inside:
    """Return what the file said when it had this text, as a snapshot keeps it."""
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    return _known(data)


def _known(data: Any) -> Inside:
    known: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in (data if isinstance(data, dict) else {}).items()
        if key in _FIELDS
    }
    return Inside(**known)
