"""The displays that move; imported only where standard error is a terminal."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from vmctl.lifecycle import events
from vmctl.ui import drawing, escape, palette, progress, terminal

_REDRAWS_PER_SECOND = 10


class _Running:
    """A step that has begun and not ended."""

    def __init__(self, step: events.Step) -> None:
        self.begun = time.monotonic()
        self.step = step
        self.note = escape.one_line(step.note)

    def take(self, step: events.Step) -> None:
        """Take in how far it is; the last thing seen stays until something newer is seen."""
        self.step = step
        self.note = escape.one_line(step.note) or self.note

    def text(self, width: int) -> Text:
        """One line: who, what, for how long, what was last seen."""
        line = Text(no_wrap=True, overflow="ellipsis")
        if self.step.machine:
            line.append(escape.one_line(self.step.machine), palette.HEADING).append("  ")
        line.append(escape.one_line(self.step.step), palette.BUSY)
        if self.step.total > 0:
            line.append(f"  {100 * self.step.done // self.step.total} %")
        line.append(f"  {progress.duration(time.monotonic() - self.begun)}", palette.QUIET)
        if self.note:
            line.append(f"  {self.note}", palette.QUIET)
        line.truncate(width, overflow="ellipsis")
        return line


class Board:
    """Running steps as a list that is redrawn; ended steps and notes stay above it as lines."""

    def __init__(self, stream: TextIO, out: terminal.Terminal) -> None:
        self._out = out
        self._console = drawing.console(stream, out)
        self._spinner = spinner(out)
        self._running: dict[tuple[str, str], _Running] = {}
        self._lock = threading.Lock()
        self._live = Live(
            console=self._console,
            get_renderable=self._drawn,
            refresh_per_second=_REDRAWS_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with contextlib.suppress(OSError):
                self._live.stop()
        finally:
            # Also when a second Ctrl-C arrives within the lines above.
            with contextlib.suppress(OSError):
                self._console.show_cursor(True)

    def show(self, event: events.Event) -> None:
        """Take in one event."""
        if isinstance(event, events.Step):
            self._note(event)
        if progress.worth_a_line(event):
            mark, *rest = progress.line(event, unicode=self._out.unicode)
            # A grid, so that a long text goes on under its own beginning and not under the mark.
            grid = Table.grid(padding=(0, 1, 0, 0))
            grid.add_row(Text(*mark), Text.assemble(*rest))
            with contextlib.suppress(OSError):  # a display that is gone does not end the work
                self._console.print(grid)

    def _note(self, step: events.Step) -> None:
        key = (step.machine, step.step)
        with self._lock:
            if step.phase in (events.Phase.DONE, events.Phase.FAILED):
                self._running.pop(key, None)
            elif key in self._running:
                self._running[key].take(step)
            else:
                self._running[key] = _Running(step)

    def _drawn(self) -> Table | Group:
        with self._lock:
            running = list(self._running.values())
        if not running:
            return Group()
        grid = Table.grid(padding=(0, 1, 0, 0))
        for step in running:
            grid.add_row(self._spinner, step.text(self._out.width - 4))
        return grid


def spinner(out: terminal.Terminal) -> Spinner:
    """Return a spinner that the terminal's encoding can show."""
    return Spinner("dots" if out.unicode else "line", style=palette.BUSY)
