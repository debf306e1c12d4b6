"""What a comparison shows, in sentences; only what was decided is said. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vmctl.lab import amount, direct
from vmctl.lab.decision import Outcome
from vmctl.lab.summary import Cell, Row, Summary

_SURE = (Outcome.BETTER, Outcome.WORSE)


def sentences(found: Summary) -> Iterator[str]:
    """Yield the sentences; none where the rounds are too few to decide anything."""
    if found.results.against_itself:
        return
    yield from _starts(found)
    for cells, words in _TOLD:
        yield from _ratios(found, cells, words)
    yield from _undecided(found)


_TOLD = (
    (
        ("cpu-integer", "cpu-float"),
        "{name}: sorting costs {first} of what it does on {baseline}, floating point {second}.",
    ),
    (
        ("system-call", "context-switch"),
        "{name}: a system call costs {first} of that of {baseline}, a process switch {second}.",
    ),
    (
        ("disk-random", "disk-sequential"),
        "{name}: small disk reads cost {first} of those of {baseline}, throughput is {second}.",
    ),
)


def _starts(found: Summary) -> Iterator[str]:
    row = _row(found, "start-total")
    cells = (
        sorted((cell for cell in row.cells if cell.present), key=lambda cell: cell.median)
        if row
        else []
    )
    if len(cells) >= 2:
        told = ", ".join(f"{cell.contender} {amount.text(cell.median, 's')}" for cell in cells)
        yield f"From the call to the first line of the job: {told}."


def _ratios(found: Summary, names: tuple[str, str], words: str) -> Iterator[str]:
    rows = [_row(found, name) for name in names]
    for name in found.contenders:
        if name == found.results.baseline:
            continue
        cells = [row.cell(name) if row else None for row in rows]
        if all(cell is not None and _sure(cell) for cell in cells):
            first, second = (
                amount.times(cell.ratio.value) for cell in cells if cell and cell.ratio
            )
            yield words.format(
                name=name, baseline=_called(found.results.baseline), first=first, second=second
            )


def _undecided(found: Summary) -> Iterator[str]:
    for name in found.contenders:
        open_rows = [
            row.workload.name for row in found.rows if row.cell(name).outcome is Outcome.NO_WINNER
        ]
        if open_rows:
            yield (
                f"{name}: no difference to {_called(found.results.baseline)} is shown in "
                f"{', '.join(open_rows)}."
            )


def _row(found: Summary, name: str) -> Row | None:
    return next((row for row in found.rows if row.workload.name == name), None)


def _sure(cell: Cell) -> bool:
    return cell.ratio is not None and cell.outcome in _SURE


def _called(baseline: str) -> str:
    return "the host" if baseline == direct.MODE else baseline
