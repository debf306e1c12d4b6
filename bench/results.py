"""The raw samples in a JSON file, and the tables made from them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
import statistics
from typing import Any

from bench.rounds import Group
from vmctl.lab import estimate

FORMAT = 1
DIRECTORY = pathlib.Path(__file__).parent / "results"

_BYTES = 1 << 20


@dataclasses.dataclass(slots=True)
class Results:
    """All that one run of the bench gave."""

    host: dict[str, str]
    seed: int
    groups: list[Group] = dataclasses.field(default_factory=list)

    def save(self, path: pathlib.Path) -> None:
        """Write everything, raw samples included."""
        data = {
            "format": FORMAT,
            "host": self.host,
            "seed": self.seed,
            "groups": [group.as_dict() for group in self.groups],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=1) + "\n")

    @classmethod
    def load(cls, path: pathlib.Path) -> Results:
        """Read a file that `save` wrote; raises ValueError for another format."""
        data: dict[str, Any] = json.loads(path.read_text())
        if data.get("format") != FORMAT:
            raise ValueError(f"{path} has format {data.get('format')}, not {FORMAT}")
        groups = [Group.from_dict(group) for group in data["groups"]]
        return cls(host=data["host"], seed=data["seed"], groups=groups)

    def markdown(self) -> str:
        """Return the tables as they stand in docs/performance.md."""
        lines = ["| host | |", "|---|---|"]
        lines += [f"| {key} | {value} |" for key, value in self.host.items()]
        return "\n".join(lines) + "\n" + self.tables()

    def tables(self) -> str:
        """Return the groups' tables."""
        return "".join("\n" + "\n".join(table(group, self.seed)) + "\n" for group in self.groups)


def table(group: Group, seed: int) -> list[str]:
    """Return one group as a Markdown table: medians, the least, the ratio of the first metric."""
    if not group.rounds:
        return [f"### {group.title}: no whole round"]
    main, *others = group.metrics
    enough = len(group.rounds) >= estimate.FEWEST
    head = [
        "contender",
        f"{_title(main)}, median",
        "least",
        f"ratio to {group.baseline}{' (95 %)' if enough else ''}",
        *(f"{_title(metric)}, median" for metric in others),
    ]
    lines = [f"### {group.title} ({len(group.rounds)} rounds)", "", _row(head)]
    lines.append(_row(["---", *["---:"] * (len(head) - 1)]).replace(" ", ""))
    for name in group.names:
        values = group.values(name, main)
        cells = [
            name,
            amount(statistics.median(values), main),
            amount(min(values), main),
            _ratio(group, name, seed),
        ]
        for metric in others:
            known = group.has(name, metric)
            cells.append(
                amount(statistics.median(group.values(name, metric)), metric) if known else ""
            )
        lines.append(_row(cells))
    notes = [f"* {name}: {note}" for name, note in group.notes.items() if note]
    return [*lines, *_block(comparisons(group, seed)), *_block(notes)]


def comparisons(group: Group, seed: int) -> list[str]:
    """Say how the group's subject compares with each of the others."""
    if group.subject not in group.names:
        return []
    lines = []
    for name in group.names:
        if name != group.subject:
            found = _paired(group, group.subject, name, seed)
            lines.append(f"* {group.subject} / {name}: {found}, {found.verdict}")
    return lines


def _block(lines: list[str]) -> list[str]:
    return ["", *lines] if lines else []


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(group: Group, name: str, seed: int) -> str:
    if name == group.baseline:
        return "1"
    return str(_paired(group, name, group.baseline, seed)) if group.baseline in group.names else ""


def _paired(group: Group, ours: str, theirs: str, seed: int) -> estimate.Ratio:
    # Each pair draws the same numbers, whatever the other rows are.
    chance = random.Random(seed)
    metric = group.metrics[0]
    return estimate.paired_ratio(group.values(ours, metric), group.values(theirs, metric), chance)


def _title(metric: str) -> str:
    return metric.removesuffix("_bytes").removesuffix("_seconds").replace("_", " ")


def amount(value: float, metric: str) -> str:
    """Return a number with its unit; the metric's name says which it is."""
    if metric.endswith("_bytes"):
        return f"{value / 1024:.0f} KiB" if value < _BYTES else f"{value / _BYTES:.0f} MiB"
    if value < 0.0995:
        return f"{value * 1000:.1f} ms"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
