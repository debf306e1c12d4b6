"""Questions are asked where somebody can answer."""

from __future__ import annotations

import io
import sys

import pytest

from vmctl import errors
from vmctl.ui import ask


class Tty(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "meant"),
    [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False), ("yo\n", False)],
)
def test_only_a_yes_is_a_yes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    meant: bool,
) -> None:
    monkeypatch.setattr(sys, "stdin", Tty(answer))
    assert ask.confirm("Remove 'web'?", yes=False) is meant
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Remove 'web'? [y/N] ")


def test_the_option_answers_without_asking(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert ask.confirm("Remove 'web'?", yes=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stdin", [io.StringIO("y\n"), None])
def test_without_a_terminal_the_option_is_required(
    monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(errors.UsageError, match="Remove 'web'") as caught:
        ask.confirm("Remove 'web'?", yes=False)
    assert "-y" in caught.value.hint
