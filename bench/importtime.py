"""Reads what `python -X importtime` prints. Pure."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable

_PREFIX = "import time:"


@dataclasses.dataclass(frozen=True, slots=True)
class Import:
    """One module: microseconds of its own, and with all that it imported first."""

    own: int
    cumulative: int
    module: str


def parse(text: str) -> list[Import]:
    """Return the imports in a program's standard error; other lines are passed over."""
    found = []
    for line in text.splitlines():
        if line.startswith(_PREFIX):
            cells = [cell.strip() for cell in line.removeprefix(_PREFIX).split("|")]
            if len(cells) == 3 and cells[0].isdigit() and cells[1].isdigit():
                found.append(Import(int(cells[0]), int(cells[1]), cells[2]))
    return found


def by_package(imports: Iterable[Import]) -> dict[str, float]:
    """Return the seconds that each top-level package took by itself."""
    found: defaultdict[str, float] = defaultdict(float)
    for each in imports:
        found[each.module.partition(".")[0]] += each.own / 1e6
    return dict(found)
