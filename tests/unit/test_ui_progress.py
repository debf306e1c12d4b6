"""Progress: live on a terminal, lines elsewhere, silent when asked; never an end to the work."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator

import pytest

from vmctl.lifecycle.events import Event, Note, Phase, Step
from vmctl.ui import progress

HIDE_CURSOR = "\x1b[?25l"
SHOW_CURSOR = "\x1b[?25h"


class Tty(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A stream whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def terminal(monkeypatch: pytest.MonkeyPatch) -> Tty:
    """Put a terminal in place; not a fixture, as pytest replaces the streams after the set-up."""
    stream = Tty()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


def work() -> Iterator[Event]:
    yield Step(machine="web", step="start", phase=Phase.STARTED)
    yield Step(machine="web", step="start", phase=Phase.PROGRESS, note="Booting \x1b[2J" + "x" * 90)
    yield Note(machine="web", level="info", text="KVM is not usable", hint="vmctl doctor")
    yield Note(machine="", level="warning", text="One machine is no longer in the spec.")
    yield Step(machine="web", step="start", phase=Phase.DONE, seconds=0.42)
    yield Step(machine="db", step="start", phase=Phase.FAILED, seconds=125.0, note="panic")


def lines_of(stream: io.StringIO) -> list[str]:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    return [line.rstrip() for line in re.split(r"[\r\n]+", text)]


def test_elsewhere_each_ended_step_and_note_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress.follow(work())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "• web  KVM is not usable",
        "  hint: vmctl doctor",
        "! One machine is no longer in the spec.",
        "✓ web  start  0.4 s",
        "✗ db  start  2 min 05 s  panic",
    ]


def test_quiet_leaves_what_needs_attention(capsys: pytest.CaptureFixture[str]) -> None:
    progress.follow(work(), quiet=True)
    assert capsys.readouterr().err.splitlines() == [
        "! One machine is no longer in the spec.",
        "✗ db  start  2 min 05 s  panic",
    ]


def test_narrow_encodings_get_words(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    progress.follow(work())
    stream.seek(0)
    assert "ok web  start  0.4 s\nFAILED db" in stream.read()


def test_a_terminal_keeps_the_ended_steps_and_gets_its_cursor_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = terminal(monkeypatch)
    progress.follow(work())
    text = screen.getvalue()
    assert HIDE_CURSOR in text
    assert text.rfind(SHOW_CURSOR) > text.rfind(HIDE_CURSOR)
    lines = lines_of(screen)
    assert "✓ web  start  0.4 s" in lines
    assert "✗ db  start  2 min 05 s  panic" in lines
    assert max(map(len, lines)) <= 80


def test_a_terminal_is_not_at_the_mercy_of_guest_text(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    progress.follow(work())
    assert "\x1b[2J" not in screen.getvalue()


def test_what_the_work_raises_passes_through_after_the_display_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = terminal(monkeypatch)

    def failing() -> Iterator[Event]:
        yield Step(machine="web", step="start", phase=Phase.STARTED)
        raise LookupError("within")

    with pytest.raises(LookupError, match="within"):
        progress.follow(failing())
    text = screen.getvalue()
    assert text.rfind(SHOW_CURSOR) > text.rfind(HIDE_CURSOR)


def test_an_interruption_while_showing_closes_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def endless() -> Iterator[Event]:
        try:
            while True:
                yield Step(machine="web", step="start", phase=Phase.DONE)
        finally:
            closed.append(True)

    def interrupted(self: progress.Lines, event: Event) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress.Lines, "show", interrupted)
    happenings = endless()  # held here, so that not the garbage collector closes it
    with pytest.raises(KeyboardInterrupt):
        progress.follow(happenings)
    assert closed


def test_the_work_goes_on_when_nobody_looks_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def working() -> Iterator[Event]:
        for event in work():
            yield event
            done.append(event)

    monkeypatch.setattr(sys, "stderr", Gone())
    progress.follow(working())
    assert len(done) == 6


def test_a_list_of_events_will_do(capsys: pytest.CaptureFixture[str]) -> None:
    progress.follow(list(work()))
    assert "✓ web" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (99.4, "99 s"), (99.6, "1 min 40 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text
