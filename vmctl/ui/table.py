"""Shows tables: drawn for a person, plain and complete for a program."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from vmctl.ui import escape, palette, terminal

if TYPE_CHECKING:
    from rich.table import Table

_GAP = "  "
_LONGEST_NAME = 30
"""Columns; longer ones are broken where the terminal is narrow."""

NOTHING = "-"
"""Stands where there is no value, so that columns can be counted (awk, cut)."""


def show(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[str] = (),
    state: str = "",
    empty: str = "",
) -> None:
    """Print a table to standard output.

    `right` names the columns that are aligned right, `state` the one whose words get a colour.
    Where there are no rows, `empty` is told to the person (standard error) in place of the table;
    a pipe still gets the header.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    out = terminal.of(sys.stdout)
    if not cells and empty:
        if terminal.is_tty(sys.stderr):
            print(empty, file=sys.stderr)
        if out.tty:
            return
    if out.moves:
        from vmctl.ui import drawing

        table = drawn(columns, cells, right=right, state=state)
        drawing.console(sys.stdout, out).print(table)
    else:
        terminal.put(plain(columns, cells, right=right))


def _cell(value: object) -> str:
    """One line of text without control characters; what it is indented by stays."""
    text = "" if value is None else str(value)
    line = escape.one_line(text)
    return text[: len(text) - len(text.lstrip(" "))] + line if line else NOTHING


def plain(
    columns: Sequence[str], cells: Sequence[Sequence[str]], *, right: Collection[str] = ()
) -> str:
    """Return aligned columns under a header: nothing cut off, no colour, no trailing blanks."""
    table = [[title.upper() for title in columns], *cells]
    widths = [max(columns_of(row[index]) for row in table) for index in range(len(columns))]
    lines = []
    for row in table:
        padded = []
        for title, text, width in zip(columns, row, widths, strict=True):
            blank = " " * (width - columns_of(text))
            padded.append(blank + text if title in right else text + blank)
        lines.append(_GAP.join(padded).rstrip())
    return "\n".join(lines)


def columns_of(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    marks = sum(unicodedata.combining(character) != 0 for character in text)
    return len(text) + wide - marks


def drawn(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Collection[str], state: str
) -> Table:
    """Return a table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=palette.HEADING)
    for index, title in enumerate(columns):
        # Folding keeps every character, and the first column, of names, is folded last.
        table.add_column(
            title.upper(),
            justify="right" if title in right else "left",
            overflow="fold",
            no_wrap=index == 0 and all(len(str(row[0])) <= _LONGEST_NAME for row in rows),
        )
    for row in rows:
        table.add_row(
            *(
                Text(text, style=palette.style_of(text) if title == state else "")
                for title, text in zip(columns, map(_cell, row), strict=True)
            )
        )
    return table
