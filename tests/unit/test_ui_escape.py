"""Text of others can neither steer a terminal nor deceive its reader."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from vmctl.ui import escape


@given(st.text(alphabet=st.characters()))
def test_no_control_character_survives(text: str) -> None:
    for character in escape.printable(text, keep=""):
        assert unicodedata.category(character) not in ("Cc", "Cs")
        assert unicodedata.bidirectional(character) not in (
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI", "B"),
        )


@given(st.text(alphabet=st.characters()))
def test_newlines_and_tabs_stay_where_asked(text: str) -> None:
    shown = escape.printable(text)
    assert shown.count("\n") == text.count("\n")
    assert shown.count("\t") == text.count("\t")
    assert not set(shown) & {chr(code) for code in range(32) if chr(code) not in "\n\t"}


@given(st.text(alphabet=st.characters()))
def test_one_line_is_one_line(text: str) -> None:
    assert len(escape.one_line(text).splitlines()) <= 1


def test_what_is_escaped_can_be_read() -> None:
    assert escape.printable("a\x1b[31mb\x07\x7f\x9b") == "a\\x1b[31mb\\x07\\x7f\\x9b"
    assert escape.printable("\u202egnp.exe") == "\\u202egnp.exe"
    assert escape.printable("\udcff") == "\\udcff"
    assert escape.printable("\U000e0041") == "\\U000e0041"


def test_ordinary_text_stays_as_it_is() -> None:
    text = "Grüße, 虚拟机 🙂 שלום | café\n\tok"
    assert escape.printable(text) == text


def test_one_line_joins_lines() -> None:
    assert escape.one_line("  first\nsecond\r\n") == "first second\\x0d"
