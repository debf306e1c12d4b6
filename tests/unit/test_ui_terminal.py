"""What a stream can show is read from the stream and the environment."""

from __future__ import annotations

import io

import pytest

from vmctl.ui import terminal


class Tty(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)


def test_a_terminal_moves_and_has_colours() -> None:
    out = terminal.of(Tty())
    assert (out.tty, out.moves, out.colour, out.unicode, out.width) == (True, True, True, True, 80)


def test_a_pipe_has_nothing_of_that() -> None:
    out = terminal.of(io.StringIO())
    assert (out.tty, out.moves, out.colour) == (False, False, False)


def test_no_color_takes_the_colours_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = terminal.of(Tty())
    assert out.moves
    assert not out.colour
    assert out.painted("text", "red") == "text"


def test_an_empty_no_color_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    assert terminal.of(Tty()).painted("text", "bold red") == "\x1b[1;31mtext\x1b[0m"


@pytest.mark.parametrize("name", ["dumb", ""])
def test_a_dumb_terminal_neither_moves_nor_has_colours(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TERM", name)
    out = terminal.of(Tty())
    assert out.tty
    assert not out.moves
    assert not out.colour


@pytest.mark.parametrize(
    ("columns", "width"), [("120", 120), ("0", 80), ("wide", 80), ("-5", 80), ("²", 80)]
)
def test_the_width_is_what_columns_says(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal.of(Tty()).width == width


def test_a_narrow_encoding_is_seen() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    assert not terminal.of(stream).unicode


def test_a_closed_stream_is_no_terminal() -> None:
    stream = Tty()
    stream.close()
    assert not terminal.is_tty(io.TextIOWrapper(io.BytesIO()))
    assert not terminal.is_tty(None)
