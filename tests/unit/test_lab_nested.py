"""A comparison brought back from the lab host: what is said of it."""

from __future__ import annotations

import pytest

from tests.unit.lab_samples import made
from vmctl import errors
from vmctl.lab import caveat, checks, nested, summary
from vmctl.lab.nested import Nested, Request
from vmctl.lab.page import page
from vmctl.lab.results import Results
from vmctl.lifecycle.events import Note, Phase, Step
from vmctl.ui import comparison, terminal

PLAIN = terminal.Terminal(tty=False, moves=False, colour=False, unicode=True, width=80)


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> Results:
    monkeypatch.setattr(nested, "_outer", lambda: {"name": "laptop"})
    found = Nested(Request(words=()), lambda _results: None)
    return found._marked(made(2).text().encode())


def test_they_are_marked_with_the_host_below(brought: Results) -> None:
    assert brought.host[caveat.OUTER] == {"name": "laptop"}
    assert caveat.applies(brought)
    assert "on 'laptop'" in caveat.sentences(brought)[0]


def test_others_are_not() -> None:
    assert caveat.sentences(made(2)) == ()


def test_it_is_said_in_the_terminal_and_on_the_page(brought: Results) -> None:
    found = summary.summarise(brought)
    shown = " ".join(" ".join(comparison.lines(found, PLAIN)).split())
    text = page.text([found])
    assert caveat.SHORT in text
    for sentence in caveat.sentences(brought):
        assert sentence in shown
    assert "do not quote them as the overhead of KVM" in text
    assert caveat.SHORT not in page.text([summary.summarise(made(2))])


def test_the_literatures_figures_are_of_hardware(brought: Results) -> None:
    expected = [note.text for note in checks.notes(summary.summarise(made(2)))]
    assert any("expected" in text for text in expected)
    assert not any("expected" in note.text for note in checks.notes(summary.summarise(brought)))


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b"nonsense"])
def test_what_is_no_result_is_the_guests_fault(content: bytes) -> None:
    with pytest.raises(errors.GuestError, match="no result of a comparison"):
        Nested(Request(words=()), lambda _results: None)._marked(content)


def test_what_the_lab_host_says_is_passed_on_line_by_line() -> None:
    listener = nested._Listener("compare inside")

    def run(_argv: object, _timeout: object, _stdin: object, _out: object, err: object) -> int:
        err(b"\xe2\x9c\x93 warm-up: host  2.2 s\n! full: a run is ")  # type: ignore[operator]
        err(b"void\n\nhint: look\n")  # type: ignore[operator]
        return 5

    listener.attend(run, (), None, None)
    first, *notes, last = listener.events()
    assert isinstance(first, Step)
    assert [(note.level, note.text) for note in notes if isinstance(note, Note)] == [
        ("info", "warm-up: host  2.2 s"),
        ("warning", "full: a run is void"),
        ("info", "hint: look"),
    ]
    assert isinstance(last, Step)
    assert last.phase is Phase.FAILED
    assert listener.lines[-1] == "hint: look"
