"""What the standard streams can show."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from typing import TextIO

DEFAULT_WIDTH = 80


@dataclasses.dataclass(frozen=True, slots=True)
class Terminal:
    """One stream: is it a terminal, and what does it understand; `width` in columns.

    `moves` says that the cursor can be moved, which a live display needs.
    """

    tty: bool
    moves: bool
    colour: bool
    unicode: bool
    width: int

    def painted(self, text: str, style: str) -> str:
        """Return `text` in one of the styles of `palette`, or as it is where there is no colour."""
        codes = ";".join(_SGR[word] for word in style.split())
        return f"\x1b[{codes}m{text}\x1b[0m" if self.colour and codes else text


# The eight standard colours without black and white: readable on dark and on light backgrounds.
_SGR = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}


def put(text: str) -> None:
    """Print a result to standard output.

    A reader that has left (`vmctl ps | head -1`) is no reason to stop: the command goes on and ends
    with the status of its work. Raises OSError where writing fails otherwise.
    """
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(text + "\n")


def of(stream: TextIO) -> Terminal:
    """Look at `stream` and at NO_COLOR (https://no-color.org), TERM and COLUMNS."""
    tty = is_tty(stream)
    moves = tty and os.environ.get("TERM", "dumb") not in ("", "dumb")
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
    return Terminal(
        tty=tty,
        moves=moves,
        colour=moves and not os.environ.get("NO_COLOR"),
        unicode=encoding.startswith("utf"),
        width=_width(stream) if tty else DEFAULT_WIDTH,
    )


def is_tty(stream: TextIO | None) -> bool:
    """True where a person is at the other end; closed and missing streams are none."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _width(stream: TextIO) -> int:
    chosen = os.environ.get("COLUMNS", "")
    if chosen.isascii() and chosen.isdigit() and int(chosen) > 0:
        return int(chosen)
    try:
        # A terminal that does not know its size says 0.
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
    except (OSError, ValueError):
        return DEFAULT_WIDTH
