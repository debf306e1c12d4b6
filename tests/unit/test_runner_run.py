"""Runs that fail otherwise than by a command: each has an outcome, and the others go on."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import types

import pytest

from vmctl import errors
from vmctl.lifecycle import events, schedule
from vmctl.runner import matrix
from vmctl.runner.job import Copy, Job, Outcome
from vmctl.runner.run import Request, Result, Runs
from vmctl.runner.timings import Stage
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


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        ({}, "The machine is gone. To look into it, run it again with --keep-on-failure."),
        ({"keep_on_failure": True}, ""),
        ({"kept": True, "keep_on_failure": True}, "Look: vmctl exec run-1 -- ls"),
    ],
)
def test_no_hint_leads_to_a_machine_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, bool], hint: str
) -> None:
    def run(_self: Runs, result: Result, _worker: object) -> Outcome:
        result.name, result.kept = "run-1", more.get("kept", False)
        problem = errors.NotFoundError("no", hint="Look: vmctl exec run-1 -- ls")
        return Outcome(status=125, problem=problem)

    monkeypatch.setattr(Runs, "_run", run)
    found = runs(Job(argv=("x",)))
    found.request = dataclasses.replace(
        found.request, keep_on_failure=more.get("keep_on_failure", False)
    )
    list(found.events())
    outcome = found.results[0].outcome
    assert outcome is not None and outcome.problem is not None
    assert outcome.problem.hint == hint


def test_a_serial_log_that_cannot_be_written_is_refused_first(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runs, "_run", lambda *_: pytest.fail("a machine was started"))
    (tmp_path / "log.A=2").mkdir()
    for target, axes in (
        (tmp_path, ()),
        (tmp_path / "none" / "x", ()),
        (tmp_path / "log", ["A=1,2"]),
    ):
        found = runs(Job(argv=("x",)), *axes)
        found.request = dataclasses.replace(found.request, serial_log=str(target))
        with pytest.raises(errors.HostError, match=r"The serial log .* could not be written"):
            list(found.events())


def test_more_processors_than_the_host_has_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    said: list[events.Event] = []
    worker = schedule.Worker("run-1", said.append, schedule.Crew())
    found = runs(Job(argv=("x",)))
    for cpus in (1, 2, 99, 99):
        found._warn_of_cpus(types.SimpleNamespace(cpus=cpus), worker)  # type: ignore[arg-type]
    (note,) = said
    assert isinstance(note, events.Note) and note.level == "warning"
    assert "99 virtual CPUs, the host 2" in note.text and "--cpus 2" in note.hint


def test_the_wait_for_a_pool_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise errors.HostError("there is no such pool")

    monkeypatch.setattr(Runs, "_claimed", refuse)
    request = Request(wanted=None, job=Job(argv=("x",)), pool="p")
    found = Runs(request, lambda _: pytest.fail("nothing is run"))
    list(found.events())
    assert list(found.results[0].timings.seconds) == [Stage.CLAIM]
