"""Shows what is going on: live on a terminal, one line for each ended step elsewhere.

Everything goes to standard error. The display never ends the work: where standard error is gone,
the work goes on unseen.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from vmctl.lifecycle import events
from vmctl.ui import escape, palette, terminal

Segments = list[tuple[str, str]]
"""A line in pieces: text and its style."""

_ENDED = (events.Phase.DONE, events.Phase.FAILED)
_UNIMPORTANT = ("info", "debug")
_MARKS = {
    True: {"done": "✓", "failed": "✗", "note": "•", "warning": "!"},
    False: {"done": "ok", "failed": "FAILED", "note": "-", "warning": "!"},
}


class Display(Protocol):
    """Something that shows events."""

    def show(self, event: events.Event) -> None:
        """Take in one event."""


def follow(happenings: Iterable[events.Event], *, quiet: bool = False) -> None:
    """Show events until there are no more.

    `quiet` leaves only failed steps and notes that need attention. What `happenings` raises
    passes through after the display is closed; an interruption closes `happenings`.
    """
    try:
        # Begun before the display: importing rich takes as long as starting a guest.
        stream = iter(happenings)
        first = next(stream, None)
        with _display(quiet=quiet) as display:
            while first is not None:
                display.show(first)
                first = next(stream, None)
    finally:
        close: Callable[[], None] | None = getattr(happenings, "close", None)
        if close is not None:
            close()


@contextlib.contextmanager
def _display(*, quiet: bool) -> Iterator[Display]:
    out = terminal.of(sys.stderr)
    if quiet or not out.moves:
        yield Lines(out, quiet=quiet)
        return
    from vmctl.ui import live

    with live.Board(sys.stderr, out) as board:
        yield board


class Lines:
    """Writes one line for each step that has ended and each note."""

    def __init__(self, out: terminal.Terminal, *, quiet: bool) -> None:
        self._out = out
        self._quiet = quiet

    def show(self, event: events.Event) -> None:
        """Write the event's line, if it is worth one."""
        if not worth_a_line(event) or (self._quiet and not alarming(event)):
            return
        mark, *rest = (
            self._out.painted(*piece) for piece in line(event, unicode=self._out.unicode)
        )
        write(f"{mark} {''.join(rest)}".replace("\n", "\n  "))


def worth_a_line(event: events.Event) -> bool:
    """True for what stays to be read: notes, and steps that have ended."""
    return isinstance(event, events.Note) or event.phase in _ENDED


def alarming(event: events.Event) -> bool:
    """True for what is said even when little is to be said."""
    if isinstance(event, events.Note):
        return event.level not in _UNIMPORTANT
    return event.phase is events.Phase.FAILED


def line(event: events.Event, *, unicode: bool) -> Segments:
    """Return the line of an ended step or a note: the mark, then the text; a hint comes below."""
    marks = _MARKS[unicode]
    if isinstance(event, events.Note):
        loud = alarming(event)
        style = palette.ATTENTION if loud else palette.QUIET
        pieces = [(marks["warning" if loud else "note"], style)]
        pieces += [*_named(event.machine), (escape.one_line(event.text), "")]
        if event.hint:
            pieces += [("\nhint: ", palette.BUSY), (escape.one_line(event.hint), "")]
        return pieces
    failed = event.phase is events.Phase.FAILED
    style = palette.BAD if failed else palette.GOOD
    pieces = [(marks["failed" if failed else "done"], style), *_named(event.machine)]
    pieces += [(escape.one_line(event.step), palette.BAD if failed else "")]
    pieces += [(f"  {duration(event.seconds)}", palette.QUIET)]
    if event.note:
        pieces += [("  ", ""), (escape.one_line(event.note), "")]
    return pieces


def _named(machine: str) -> Segments:
    name = escape.one_line(machine)
    return [(name, palette.HEADING), ("  ", "")] if name else []


def duration(seconds: float) -> str:
    """Return a time as people say it: 0.4 s, 12 s, 3 min 05 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def write(text: str) -> None:
    """Write a line to standard error; where that is gone, nobody is left to look."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
