from __future__ import annotations

import pytest

from vmctl import errors
from vmctl.cli import variables


def test_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSED_ON", "from here")
    monkeypatch.delenv("NOT_THERE", raising=False)
    found = dict(variables.of_words(("A=1=2", "B=", "PASSED_ON")))
    assert found == {"A": "1=2", "B": "", "PASSED_ON": "from here"}
    with pytest.raises(errors.UsageError, match="'NOT_THERE'"):
        list(variables.of_words(("NOT_THERE",)))


def test_lines() -> None:
    text = ["# all of them\n", "\n", "A=1\n", "  B='as it is' # too\n"]
    assert dict(variables.of_lines(text)) == {"A": "1", "B": "'as it is' # too"}
    with pytest.raises(errors.UsageError, match="Line 2"):
        list(variables.of_lines(["A=1\n", "secret\n"]))


def test_a_bad_line_names_its_file() -> None:
    for line in ("export Y\n", "export Y=se-cret\n", "A =1\n"):
        with pytest.raises(errors.UsageError, match=r"Line 2 of 'my\.env'") as caught:
            list(variables.of_lines(["A=1\n", line], "my.env"))
        assert "se-cret" not in f"{caught.value.message}{caught.value.hint}"
