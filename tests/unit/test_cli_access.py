"""The command lines of exec and cp, as far as they go without a machine."""

from __future__ import annotations

import pathlib

import pytest

from vmctl import cli


@pytest.fixture(autouse=True)
def store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMCTL_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["exec"], "Missing argument"),
        (["exec", "web"], "no command to run"),
        (["exec", "web", "--"], "no command to run"),
        (["exec", "web", "-t", "--", "sh"], "behind the machine's name"),
        (["exec", "--nonsense", "web", "--", "sh"], "No such option"),
        (["exec", "--timeout", "soon", "web", "--", "sh"], "soon"),
        (["exec", "-e", "NO_SUCH_VARIABLE", "web", "--", "sh"], "NO_SUCH_VARIABLE"),
    ],
)
def test_what_exec_itself_refuses_is_125(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(words) == 125
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["cp"], ["cp", "a"], ["cp", "a", "b"], ["cp", "m:a", "n:b"], ["ssh", "web", "-t"]]
)
def test_usage(words: list[str]) -> None:
    assert cli.run(words) == 2
