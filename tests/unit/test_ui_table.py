"""Tables: drawn for a person, plain and complete for a program."""

from __future__ import annotations

import io
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmctl.ui import palette, table

COLUMNS = ("name", "mode", "state", "memory")
ROWS = [
    ("web", "paravirt", "running", "2 GiB"),
    ("database", "tcg-virtio", "shut off", "512 MiB"),
    ("a" * 63, "full", "crashed", None),
]


class Tty(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Tty:
    """Put a terminal in place; not a fixture, as pytest replaces the streams after the set-up."""
    stream = Tty()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return stream


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_pipe_gets_aligned_columns_whole(capsys: pytest.CaptureFixture[str]) -> None:
    table.show(COLUMNS, ROWS, state="state", right=("memory",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "MODE", "STATE", "MEMORY"]
    assert {line.index("paravirt") for line in lines[1:2]} == {lines[0].index("MODE")}
    assert lines[3].startswith("a" * 63 + "  full")
    assert lines[1].endswith("  2 GiB")
    assert lines[2].endswith("512 MiB")
    assert lines[3].endswith("      -")
    assert "\x1b" not in "".join(lines)


def test_a_pipe_gets_the_header_also_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    table.show(COLUMNS, [], empty="There are no machines.")
    captured = capsys.readouterr()
    assert captured.out == "NAME  MODE  STATE  MEMORY\n"
    assert captured.err == ""


def test_a_person_is_told_that_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    said = Tty()
    monkeypatch.setattr(sys, "stderr", said)
    table.show(COLUMNS, [], empty="There are no machines.")
    assert said.getvalue() == "There are no machines.\n"
    assert screen.getvalue() == ""


def test_guest_text_cannot_add_rows_or_colours(capsys: pytest.CaptureFixture[str]) -> None:
    table.show(("name", "note"), [("web", "first\nsecond \x1b[31mred")])
    assert capsys.readouterr().out.splitlines()[1] == "web   first second \\x1b[31mred"


@pytest.mark.parametrize("width", ["80", "60", "40"])
def test_a_terminal_gets_what_fits(monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    screen = terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", width)
    table.show(COLUMNS, ROWS, state="state")
    lines = without_colour(screen.getvalue()).splitlines()
    assert max(map(len, lines)) <= int(width)
    # Folded over several lines, but with every character of it.
    assert "".join(lines).count("a") >= 63


def test_states_have_their_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    table.show(COLUMNS, ROWS[:2], state="state")
    assert "\x1b[32mrunning" in screen.getvalue()
    assert "\x1b[2mshut off" in screen.getvalue()


def test_only_standard_colours_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    table.show(COLUMNS, ROWS, state="state")
    codes = {
        int(code)
        for found in re.findall(r"\x1b\[([0-9;]+)m", screen.getvalue())
        for code in found.split(";")
    }
    assert codes <= {0, 1, 2, *range(31, 37)}


def test_no_color_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    table.show(COLUMNS, ROWS, state="state")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", screen.getvalue())


def test_markup_and_emoji_codes_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    table.show(("name",), [("[red]web[/red] :boom:",)])
    assert "[red]web[/red] :boom:" in screen.getvalue()


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_every_plain_row_stays_one_line(rows: list[tuple[str, str]]) -> None:
    cells = [[table._cell(value) for value in row] for row in rows]
    assert len(table.plain(("one", "two"), cells).split("\n")) == len(rows) + 1


def test_wide_characters_keep_the_columns_aligned() -> None:
    assert table.columns_of("虚拟") == 4
    assert table.columns_of("e\u0301") == 1
    lines = table.plain(("name", "x"), [["虚拟", "1"], ["ab", "2"]]).split("\n")
    assert lines[1:] == ["虚拟  1", "ab    2"]


@pytest.mark.parametrize(
    ("state", "style"),
    [
        ("running", palette.GOOD),
        ("Running (ready)", palette.GOOD),
        ("shut off", palette.QUIET),
        ("internal-error", palette.BAD),
        ("something else", ""),
        ("", ""),
    ],
)
def test_states_are_looked_up_by_their_first_word(state: str, style: str) -> None:
    assert palette.style_of(state) == style
