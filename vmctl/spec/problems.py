"""What is wrong with a spec, as data; and the text that a person sees for it."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from vmctl import errors

MOST_SHOWN = 50
"""Problems that are shown; of the others only their number is."""

_LONGEST_VALUE = 60
_LONGEST_LINE = 160
_INDENT = "  "

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters but the tab, and those that reorder text on a terminal."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, and where.

    `line` and `column` count from 1; `line` 0 is a place that is no file (a `--set`). `length` is
    the number of characters to underline; 0 means the file as a whole. `suggestion` is a phrase
    ("did you mean 'memory'?"), `code` a stable word for programs.
    """

    file: str
    line: int
    column: int
    length: int
    message: str
    suggestion: str = ""
    source_line: str = ""
    code: str = "invalid"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        data = dataclasses.asdict(self)
        data["source_line"] = self.source_line[:_LONGEST_LINE]
        return data

    @property
    def order(self) -> tuple[bool, str, int, int, str]:
        """What problems are sorted by: where they stand, --set last."""
        return (not self.line, self.file, self.line, self.column, self.message)


class SpecError(errors.UsageError):
    """The spec must change; `problems` says everything that is wrong with it, in file order."""

    def __init__(self, problems: Iterable[Problem], *, unseen: int = 0) -> None:
        self.problems = in_order(problems)
        self.unseen = unseen
        super().__init__(summary(len(self.problems) + unseen), details=_listing(self.problems))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            "problems": [problem.as_dict() for problem in self.problems[:MOST_SHOWN]],
            "count": len(self.problems) + self.unseen,
        }


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the problems in the order of the file, each once."""
    unique = {problem.order: problem for problem in problems}
    return tuple(unique[order] for order in sorted(unique))


def summary(count: int) -> str:
    """Return the last line of a report."""
    return f"{count} {'problem' if count == 1 else 'problems'}; nothing was changed."


def render(problems: Sequence[Problem], *, unseen: int = 0) -> str:
    """Return the report: each problem with the user's line and a caret run, then the count."""
    return f"{_listing(problems)}\n{summary(len(problems) + unseen)}"


def _listing(problems: Sequence[Problem]) -> str:
    return "\n".join(line for problem in problems[:MOST_SHOWN] for line in lines(problem))


def lines(problem: Problem) -> list[str]:
    """Return the lines of one problem: what is wrong, the user's line, the caret run."""
    where = printable(problem.file)
    if problem.line:
        where += f":{problem.line}:{problem.column}"
    what = f"{where}: error: {problem.message}"
    if problem.suggestion:
        what += f" — {problem.suggestion}"
    return [what, *_excerpt(problem)]


def _excerpt(problem: Problem) -> list[str]:
    line, start = problem.source_line, problem.column - 1
    if not problem.length or not line or line.isspace():
        return []
    length = max(1, min(problem.length, len(line) - start, _LONGEST_LINE // 2))
    before = after = ""
    if len(line) > _LONGEST_LINE:
        first = max(0, start - _LONGEST_LINE // 3)
        last = first + _LONGEST_LINE
        before = "…" if first else ""
        after = "…" if last < len(line) else ""
        line, start = line[first:last], start - first
    line = printable(line)
    lead = " " * len(before)
    lead += "".join("\t" if char == "\t" else " " * _width(char) for char in line[:start])
    carets = "^" * sum(_width(char) for char in line[start : start + length].ljust(length))
    return [f"{_INDENT}{before}{line}{after}".rstrip(), f"{_INDENT}{lead}{carets}"]


def _width(char: str) -> int:
    """Columns that a terminal gives to the character."""
    if char.isascii():
        return 1
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def printable(text: str) -> str:
    """Return the text with a U+FFFD for each character that a terminal would act upon."""
    return _UNPRINTABLE.sub("\ufffd", text)


def quoted(value: str) -> str:
    """Return a value for use within a sentence: in quotes, on one line, not too long."""
    text = printable(value.replace("\t", " "))
    if len(text) > _LONGEST_VALUE:
        text = text[: _LONGEST_VALUE - 1] + "…"
    return f"'{text}'"
