"""Runs that fail otherwise than by a command: each has an outcome, and the others go on."""

from __future__ import annotations

import pathlib

import pytest

from vmctl import errors
from vmctl.runner import matrix
from vmctl.runner.job import Copy, Job, Outcome
from vmctl.runner.run import Request, Result, Runs
from vmctl.runner.wanted import Wanted


def runs(job: Job, *axes: str) -> Runs:
    combinations = tuple(matrix.combinations(axes))
    request = Request(wanted=Wanted(what="tiny"), job=job, combinations=combinations)
    return Runs(request, lambda _: pytest.fail("nothing is run"))


def test_a_failure_that_nobody_foresaw_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_self: Runs, result: Result, _worker: object) -> Outcome:
        if result.combination.env["A"] == "1":
            raise PermissionError(13, "Permission denied", "/x")
        return Outcome(status=3)

    monkeypatch.setattr(Runs, "_run", run)
    found = runs(Job(argv=("x",)), "A=1,2")
    list(found.events())
    first, second = (result.outcome for result in found.results)
    assert first is not None and first.problem is not None
    assert (first.status, first.failed) == (125, True)
    assert "PermissionError" in first.problem.message
    assert isinstance(first.problem.__cause__, PermissionError)
    assert second is not None and second.status == 3
    assert found.status == 125


def test_a_reader_who_left_is_no_failure_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> Outcome:
        raise BrokenPipeError

    monkeypatch.setattr(Runs, "_run", run)
    with pytest.raises(BrokenPipeError):
        list(runs(Job(argv=("x",))).events())


def test_directories_are_made_before_any_machine(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "out"
    seen: list[list[str]] = []

    def run(*_: object) -> Outcome:
        seen.append(sorted(each.name for each in made.iterdir()))
        return Outcome(status=0)

    monkeypatch.setattr(Runs, "_run", run)
    list(runs(Job(argv=("x",), copies_out=(Copy("/a", str(made)),)), "A=1,2").events())
    assert seen == [["A=1", "A=2"]] * 2

    monkeypatch.setattr(Runs, "_run", lambda *_: pytest.fail("a machine was started"))
    (tmp_path / "file").touch()
    refused = runs(Job(argv=("x",), copies_out=(Copy("/a", f"{tmp_path}/file"),)), "A=1,2")
    with pytest.raises(errors.HostError, match="could not be made"):
        list(refused.events())
