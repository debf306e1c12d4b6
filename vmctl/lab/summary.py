"""From raw samples to rows: medians, intervals, ratios to the baseline, verdicts. Pure.

Terminal, page and notes are all made from this, so that they cannot say different things.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
from collections.abc import Sequence

from vmctl.lab import catalog, decision, estimate
from vmctl.lab.decision import Outcome
from vmctl.lab.results import Results, State
from vmctl.lab.workload import Workload


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One contender in one row. Without values, `missing` says why.

    `low` and `high` are the interval of the median, equal to it where there were too few rounds.
    `ratio` is to the baseline, None for the baseline itself and where one of the two has nothing.
    """

    contender: str
    values: tuple[float, ...] = ()
    median: float = 0.0
    low: float = 0.0
    high: float = 0.0
    ratio: estimate.Ratio | None = None
    outcome: Outcome | None = None
    missing: str = ""

    @property
    def present(self) -> bool:
        """True where there is a value."""
        return bool(self.values)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One workload and what each contender gave in it."""

    workload: Workload
    cells: tuple[Cell, ...]

    def cell(self, contender: str) -> Cell:
        """Return one contender's cell."""
        return next(cell for cell in self.cells if cell.contender == contender)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The rows of one comparison; `contenders` are those that ran, in the order of the columns."""

    results: Results
    contenders: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def enough(self) -> bool:
        """True where there are as many rounds as intervals and verdicts take."""
        counts = [len(cell.values) for row in self.rows for cell in row.cells if cell.present]
        return bool(counts) and max(counts) >= estimate.FEWEST

    @property
    def winners(self) -> list[tuple[Row, Cell]]:
        """Return every cell that was declared better or worse than the baseline."""
        sure = (Outcome.BETTER, Outcome.WORSE)
        return [(row, cell) for row in self.rows for cell in row.cells if cell.outcome in sure]


def summarise(results: Results, workloads: Sequence[Workload] = ()) -> Summary:
    """Return the rows of a comparison; all verdicts are made together."""
    chosen = workloads or [
        catalog.BY_NAME[name] for name in results.workloads if name in catalog.BY_NAME
    ]
    ran = tuple(each.name for each in results.contenders if each.state is not State.REFUSED)
    rows = [_row(results, workload, ran) for workload in chosen]
    rows = [row for row in rows if any(cell.present for cell in row.cells) or _told(row)]
    return Summary(results=results, contenders=ran, rows=tuple(_decided(results, rows)))


def _told(row: Row) -> bool:
    return any(cell.missing for cell in row.cells)


def _row(results: Results, workload: Workload, names: Sequence[str]) -> Row:
    return Row(workload=workload, cells=tuple(_cell(results, workload, name) for name in names))


def _cell(results: Results, workload: Workload, name: str) -> Cell:
    values = tuple(results.values(workload.name, name).values())
    if not values:
        return Cell(contender=name, missing=results.missing(workload.name, name))
    median = statistics.median(values)
    low = high = median
    if len(values) >= estimate.FEWEST:
        low, high = estimate.interval(values, random.Random(results.seed))
    baseline = baseline_of(results, name)
    ratio = None
    if baseline != name:
        ours, theirs = results.pairs(workload.name, name, baseline)
        if ours and min(*ours, *theirs) > 0:
            ratio = estimate.paired_ratio(ours, theirs, random.Random(results.seed))
    return Cell(contender=name, values=values, median=median, low=low, high=high, ratio=ratio)


def baseline_of(results: Results, name: str) -> str:
    """Return whom a contender is compared with: its own twin where modes run against themselves."""
    if results.against_itself:
        return f"{name.rpartition(' ')[0]} A"
    return results.baseline


def _decided(results: Results, rows: list[Row]) -> list[Row]:
    """Give every cell with a ratio its verdict."""
    places = [
        (row_number, cell_number)
        for row_number, row in enumerate(rows)
        for cell_number, cell in enumerate(row.cells)
        if cell.ratio is not None
    ]
    questions = [_question(results, rows[row], rows[row].cells[cell]) for row, cell in places]
    outcomes = dict(zip(places, decision.decide(questions), strict=True))
    return [
        dataclasses.replace(
            row,
            cells=tuple(
                dataclasses.replace(cell, outcome=outcomes.get((row_number, cell_number)))
                for cell_number, cell in enumerate(row.cells)
            ),
        )
        for row_number, row in enumerate(rows)
    ]


def _question(results: Results, row: Row, cell: Cell) -> decision.Question:
    assert cell.ratio is not None
    theirs = row.cell(baseline_of(results, cell.contender))
    ours_paired, theirs_paired = results.pairs(row.workload.name, cell.contender, theirs.contender)
    return decision.Question(
        ours=tuple(ours_paired),
        theirs=tuple(theirs_paired),
        less_is_better=row.workload.less_is_better,
        ratio=cell.ratio,
        overlap=cell.low <= theirs.high and theirs.low <= cell.high,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Factor:
    """How many times the second host's median is the first's; `overlap` of their intervals."""

    value: float
    overlap: bool


def between_hosts(first: Cell, second: Cell) -> Factor:
    """Return the ratio of two hosts' medians, which no round connects."""
    overlap = first.low <= second.high and second.low <= first.high
    return Factor(second.median / first.median, overlap)
