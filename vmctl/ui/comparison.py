"""Shows a comparison as a table that fits 80 columns, in blocks where there are many contenders."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence

from vmctl.lab import amount, caveat, checks, estimate, summary
from vmctl.lab.decision import Outcome
from vmctl.lab.results import State
from vmctl.lab.summary import Cell, Row, Summary
from vmctl.ui import escape, palette, terminal

_NAME = 17
_COLUMN = 14
_MARKS = {
    True: {Outcome.BETTER: "▲", Outcome.WORSE: "▼", Outcome.NO_WINNER: "≈", Outcome.TOO_FEW: "?"},
    False: {Outcome.BETTER: "+", Outcome.WORSE: "-", Outcome.NO_WINNER: "=", Outcome.TOO_FEW: "?"},
}
_STYLES = {Outcome.BETTER: palette.GOOD, Outcome.WORSE: palette.BAD}


@dataclasses.dataclass(frozen=True, slots=True)
class _Word:
    """A cell's text and its style."""

    text: str
    style: str = ""


def show(found: Summary) -> None:
    """Print tables and notes to standard output."""
    out = terminal.of(sys.stdout)
    for line in lines(found, out):
        terminal.put(line)


def lines(found: Summary, out: terminal.Terminal) -> Iterator[str]:
    """Yield the lines of the report."""
    yield from _head(found, out)
    for block in _blocks(found, out.width):
        yield ""
        yield from _table(found, block, out)
    yield ""
    yield from _legend(found, out)
    yield from _notes(found, out)


def _head(found: Summary, out: terminal.Terminal) -> Iterator[str]:
    results = found.results
    yield out.painted(escape.one_line(results.title or "this host"), palette.HEADING)
    for sentence in caveat.sentences(results):
        for line in _folded(escape.one_line(sentence), out.width):
            yield out.painted(line, palette.ATTENTION)
    if results.state is State.PARTIAL:
        yield out.painted(f"Partial: {escape.one_line(results.why)}.", palette.ATTENTION)
    for each in results.contenders:
        if each.state is State.REFUSED:
            first = each.why.partition(". ")[0].rstrip(".")
            said = f"{each.name}: not run: {escape.one_line(first)}."
            yield from _folded(said, out.width)
    void = [run for run in results.runs if run.state is State.VOID]
    for name in sorted({run.contender for run in void}):
        reasons = [run.why for run in void if run.contender == name]
        said = f"{name}: {len(reasons)} void: {escape.one_line(reasons[0])}."
        for line in _folded(said, out.width):
            yield out.painted(line, palette.ATTENTION)


def _folded(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, subsequent_indent="  ")


def _blocks(found: Summary, width: int) -> list[list[str]]:
    """Return the contenders of each table; the baseline stands in all of them."""
    names = ordered(found)
    room = max(2, (width - _NAME) // _COLUMN)
    if len(names) <= room:
        return [names]
    first, others = names[0], names[1:]
    step = room - 1
    return [[first, *others[at : at + step]] for at in range(0, len(others), step)]


def ordered(found: Summary) -> list[str]:
    """Return the contenders with the baseline first."""
    if found.results.against_itself:
        return list(found.contenders)
    names = list(found.contenders)
    return sorted(names, key=lambda name: name != found.results.baseline)


def _table(found: Summary, names: Sequence[str], out: terminal.Terminal) -> Iterator[str]:
    yield _line([_Word("", "")] + [_Word(name, palette.HEADING) for name in names], out)
    group = None
    for row in found.rows:
        if row.workload.group is not group:
            group = row.workload.group
            yield out.painted(group.heading, palette.HEADING)
        cells = [row.cell(name) for name in names]
        yield _line([_Word(f" {row.workload.name}")] + [_value(row, cell) for cell in cells], out)
        if any(cell.ratio is not None for cell in cells):
            yield _line([_Word("")] + [_ratio(cell, out) for cell in cells], out)


def _line(words: Sequence[_Word], out: terminal.Terminal) -> str:
    first, *others = words
    text = out.painted(first.text.ljust(_NAME), first.style)
    for word in others:
        text += out.painted(word.text.rjust(_COLUMN), word.style)
    return text.rstrip()


def _value(row: Row, cell: Cell) -> _Word:
    if not cell.present:
        return _Word("-", palette.QUIET)
    return _Word(amount.text(cell.median, row.workload.unit))


def _ratio(cell: Cell, out: terminal.Terminal) -> _Word:
    if cell.ratio is None or cell.outcome is None:
        return _Word("")
    mark = _MARKS[out.unicode][cell.outcome]
    factor = amount.times(cell.ratio.value)
    if not out.unicode:
        factor = factor.replace(amount.TIMES, "x")
    return _Word(f"{factor} {mark}", _STYLES.get(cell.outcome, palette.QUIET))


def _legend(found: Summary, out: terminal.Terminal) -> Iterator[str]:
    results = found.results
    rounds = max((len(cell.values) for row in found.rows for cell in row.cells), default=0)
    marks = _MARKS[out.unicode]
    against = "twin A" if results.against_itself else results.baseline
    yield from _folded(
        f"Medians of {rounds} rounds, below them the ratio to {against}: "
        f"{marks[Outcome.BETTER]} better, {marks[Outcome.WORSE]} worse, "
        f"{marks[Outcome.NO_WINNER]} no difference shown, {marks[Outcome.TOO_FEW]} too few rounds "
        f"to say (fewer than {estimate.FEWEST}); - not measured.",
        out.width,
    )
    if results.against_itself:
        count = len(found.winners)
        said = "no winner, as it must be" if not count else f"{count} false winners"
        style = palette.GOOD if not count else palette.BAD
        yield out.painted(f"A thing against itself: {said}.", style)


def _notes(found: Summary, out: terminal.Terminal) -> Iterator[str]:
    for note in checks.notes(found):
        style = "" if note.within else palette.ATTENTION
        for line in _folded(f"{'Note' if note.within else 'Look'}: {note.text}", out.width):
            yield out.painted(line, style)


def show_hosts(left: Summary, right: Summary) -> None:
    """Print two comparisons side by side: the contenders that both have, one after the other."""
    out = terminal.of(sys.stdout)
    for line in host_lines(left, right, out):
        terminal.put(line)


def host_lines(left: Summary, right: Summary, out: terminal.Terminal) -> Iterator[str]:
    """Yield the lines of two hosts side by side."""
    for letter, each in (("A", left), ("B", right)):
        yield f"{letter}: {escape.one_line(each.results.title or 'unnamed host')}"
    both = [name for name in ordered(left) if name in right.contenders]
    if not both:
        yield "They have no contender in common."
    for name in both:
        yield ""
        heads = ("A", "B", "B to A")
        yield _line([_Word(name)] + [_Word(head, palette.HEADING) for head in heads], out)
        for row in left.rows:
            other = next((each for each in right.rows if each.workload == row.workload), None)
            if other is None:
                continue
            cells = (row.cell(name), other.cell(name))
            if not all(cell.present for cell in cells):
                continue
            factor = summary.between_hosts(*cells)
            words = [_value(row, cell) for cell in cells]
            mark = "≈" if factor.overlap else ""
            times = f"{amount.times(factor.value)} {mark}".strip()
            yield _line([_Word(f" {row.workload.name}"), *words, _Word(times)], out)
    yield ""
    yield from _folded(
        "The hosts were not measured in the same rounds: intervals of the medians that overlap are "
        "marked ≈, and nobody is declared a winner.",
        out.width,
    )
