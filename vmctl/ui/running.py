"""Shows runs: their machines' steps until the command has the terminal, then what it writes.

The command's own bytes go to the standard streams as they are. Everything of vmctl's goes to
standard error, and where that is no terminal, only what needs to be said.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from vmctl.guest.remote import Streams
from vmctl.guest.session import Sink
from vmctl.lifecycle import events
from vmctl.lifecycle.events import Event
from vmctl.runner.matrix import Combination
from vmctl.runner.run import Result
from vmctl.runner.timings import Stage
from vmctl.ui import escape, progress, table, terminal
from vmctl.ui.stream import Writer

_LONGEST_LINE = 1 << 16
"""Bytes of a line that has no end, as of a progress bar, which are held back."""

_COMMAND = "command"
_COLUMNS = ("mode", "status", "seconds", "why")


class Screen:
    """Where runs are shown; `one` says that there is no matrix.

    `aside` sends the command's standard output to standard error, for a program that gets JSON.
    """

    def __init__(self, *, one: bool, quiet: bool, aside: bool, stdin: int | None) -> None:
        self._one = one
        self._quiet = quiet
        self._aside = aside
        self._stdin = stdin
        self._cleared = threading.Event()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def streams(self, combination: Combination) -> Iterator[Streams]:
        """Give a combination's command what it reads and writes, until it has ended."""
        out, err = (sys.stderr if self._aside else sys.stdout), sys.stderr
        if self._one:
            yield Streams(stdin=self._stdin, stdout=self._held(out), stderr=self._held(err))
            return
        sinks = [Prefixed(Writer(each), combination.label, self._lock) for each in (out, err)]
        try:
            yield Streams(stdin=None, stdout=sinks[0], stderr=sinks[1])
        finally:
            for sink in sinks:
                sink.finish()

    def _held(self, stream: TextIO) -> Sink:
        """Return a sink that waits until the terminal is the command's."""
        writer = Writer(stream)

        def write(data: bytes) -> None:
            self._cleared.wait()
            writer(data)

        return write

    def follow(self, happenings: Iterable[Event]) -> None:
        """Show what happens until there is no more; an interruption closes `happenings`."""
        stream = iter(happenings)
        try:
            out = terminal.of(sys.stderr)
            lines = progress.Lines(out, quiet=self._quiet)
            if out.moves and self._one and not self._quiet:
                self._until_command(stream, out)
            self._cleared.set()
            for event in stream:
                if isinstance(event, events.Note):
                    lines.show(event)
        finally:
            self._cleared.set()
            close = getattr(happenings, "close", None)
            if close is not None:
                close()

    def _until_command(self, stream: Iterable[Event], out: terminal.Terminal) -> None:
        from vmctl.ui import live

        with live.Board(sys.stderr, out) as board:
            for event in stream:
                if isinstance(event, events.Step) and event.step == _COMMAND:
                    return
                board.show(event)


class Prefixed:
    """Writes whole lines, each with the combination's label ahead of it, never mixed up."""

    def __init__(self, write: Sink, label: str, lock: threading.Lock) -> None:
        self._write = write
        self._label = f"[{label}] ".encode("utf-8", "surrogateescape")
        self._lock = lock
        self._held = b""

    def __call__(self, data: bytes) -> None:
        """Take what a command wrote."""
        *lines, rest = (self._held + data).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        self._held = rest
        self._put(lines)

    def finish(self) -> None:
        """Write the last line, which has no end."""
        rest, self._held = self._held, b""
        self._put([rest] if rest else [])

    def _put(self, lines: Sequence[bytes]) -> None:
        if lines:
            with self._lock:
                self._write(b"".join(self._label + line + b"\n" for line in lines))


def show_times(result: Result) -> None:
    """Say on standard error where the time of a run went."""
    known = result.timings.as_dict()
    title = result.combination.label or result.name
    rows = [
        (stage, f"{seconds:.3f} s", Stage(stage).meaning if stage != "total" else "")
        for stage, seconds in known.items()
    ]
    if result.timings.first_output is not None:
        first = f"{result.timings.first_output:.3f} s"
        rows.append(("first output", first, "from the beginning to the command's first byte"))
    progress.write(f"Timings of {title}:")
    cells = [[escape.one_line(cell) for cell in row] for row in rows]
    progress.write(table.plain(("stage", "time", "what"), cells, right=("time",)))


def show_matrix(results: Sequence[Result]) -> None:
    """Say on standard error how each combination ended."""
    # An axis that is called as one of our columns is told apart from it.
    keys = [
        f"matrix {key}" if key.lower() in _COLUMNS else key
        for key, _ in results[0].combination.values
    ]
    rows = [[escape.one_line(cell) or "-" for cell in _row(result)] for result in results]
    progress.write(table.plain((*keys, *_COLUMNS), rows, right=("status", "seconds")))


def _row(result: Result) -> list[str]:
    outcome = result.outcome
    values = [value for _, value in result.combination.values]
    if outcome is None:
        return [*values, result.mode, "-", "-", "it was not run"]
    why = outcome.problem.message if outcome.problem is not None else ""
    seconds = f"{sum(result.timings.seconds.values()):.1f}"
    return [*values, result.mode, str(outcome.status), seconds, why]


def show_remarks(results: Sequence[Result]) -> None:
    """Say what is worth saying of runs, however they ended."""
    for result in results:
        name = result.combination.label or result.name
        problem = result.outcome.problem if result.outcome is not None else None
        for remark in result.outcome.remarks if result.outcome is not None else ():
            if problem is not None and remark == problem.message:
                # It is said as the error, or in the table, in a moment.
                continue
            progress.write(f"! {escape.one_line(name)}  {escape.one_line(remark)}")
        if result.kept:
            progress.write(
                f"- {result.name} was kept, as you asked: look inside: vmctl ssh {result.name}; "
                f"remove it: vmctl down -y {result.name}"
            )
