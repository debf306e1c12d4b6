"""What `vmctl compare` and `vmctl explain` refuse before anything is begun, and files they show."""

from __future__ import annotations

import pathlib

import pytest

from tests.unit.lab_samples import made
from vmctl import cli
from vmctl.lab import estimate


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["compare", "--modes", "fast"], "There is no mode 'fast' to compare"),
        (["compare", "--baseline", "fast"], "There is no mode 'fast' to compare"),
        (["compare", "--workloads", "dsik"], "There is no workload 'dsik'"),
        (["compare", "a.yaml", "b.yaml"], "One spec is compared at a time"),
        (["compare", "--json", "/nowhere/at/all/r.json"], "is not there"),
        (["compare", "--html", "/nowhere/at/all/r.html"], "is not there"),
        (["compare", "--from", "a", "b", "c"], "Two files are set side by side"),
        (["compare", "--rounds", "0"], "--rounds"),
        (["explain", "fast"], "There is no mode 'fast' to explain"),
    ],
)
def test_what_is_wrong_is_said_at_once(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(args) == 2
    assert said in capsys.readouterr().err


def test_a_missing_file_is_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["compare", "--from", "/nowhere.json"]) == 3
    out = capsys.readouterr()
    assert "There is no file '/nowhere.json'" in out.err
    assert out.out == ""


def test_files_are_shown_and_made_a_page_of(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "RESAMPLES", 50)
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(made(6).text())
    one, two, page = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "p.html"
    assert cli.run(["compare", "--from", str(one)]) == 0
    assert "cpu-integer" in capsys.readouterr().out
    assert cli.run(["compare", "--from", str(one), str(two), "--html", str(page)]) == 0
    assert "B to A" in capsys.readouterr().out
    assert page.read_text().startswith("<!doctype html>")
