"""What the words of `vmctl run` mean, and how it ends where vmctl itself failed."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import click
import pytest

from vmctl import errors
from vmctl.cli import context as contexts
from vmctl.cli import runs
from vmctl.cli.own_failure import GuestCommand
from vmctl.runner.run import Request, Runs


def asked(*words: str) -> Request:
    with runs.run.make_context("run", list(words), obj=contexts.Context()) as ctx:
        return runs._request(ctx.obj, ctx.params)


def test_a_pools_machines_have_no_keys_to_choose() -> None:
    assert [each.env for each in asked("--pool", "p", "--matrix", "A=1,2", "x").combinations] == [
        {"A": "1"},
        {"A": "2"},
    ]
    with pytest.raises(click.UsageError, match="--matrix mode=… and --pool exclude each other"):
        asked("--pool", "p", "--matrix", "A=1,2", "--matrix", "mode=full,paravirt", "x")


def test_a_file_of_variables_may_hold_any_bytes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "env").write_bytes(b"A=\xff\xfe\nB=\xc3\xa9\n")
    found = asked("--env-file", f"{tmp_path}/env", "tiny", "--", "x")
    assert found.job.env == {"A": "\udcff\udcfe", "B": "é"}


def ending(problem: BaseException) -> Callable[[], Any]:
    def body() -> None:
        raise problem

    command = GuestCommand("guest", callback=body)
    return lambda: command.invoke(click.Context(command))


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (PermissionError(13, "Permission denied", "/x"), "an error of its own: PermissionError"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "no"), "an error of its own"),
        (OSError(28, "No space left on device"), "Output could not be written: No space left"),
        (errors.HostError("it lacks something"), "it lacks something"),
        (click.UsageError("wrong word"), "wrong word"),
    ],
)
def test_every_failure_of_our_own_ends_with_125(problem: Exception, says: str) -> None:
    with pytest.raises(errors.VmctlError, match=says) as caught:
        ending(problem)()
    assert caught.value.exit_code == 125


@pytest.mark.parametrize("problem", [BrokenPipeError(), KeyboardInterrupt(), click.Abort()])
def test_what_is_no_failure_passes_through(problem: BaseException) -> None:
    with pytest.raises(type(problem)):
        ending(problem)()


def test_an_interruption_keeps_its_status() -> None:
    with pytest.raises(errors.InterruptError) as caught:
        ending(errors.InterruptError("Interrupted."))()
    assert caught.value.exit_code == 130


def test_a_bad_line_of_a_file_of_variables_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "env").write_text("A=1\nexport B\n")
    with pytest.raises(errors.UsageError, match=f"Line 2 of '{tmp_path}/env'"):
        asked("--env-file", f"{tmp_path}/env", "tiny", "--", "x")


def test_jobs_are_those_of_a_matrix() -> None:
    with pytest.raises(click.UsageError, match="--jobs is for --matrix"):
        asked("--jobs", "2", "tiny", "--", "x")
    assert asked("--jobs", "2", "--matrix", "A=1,2", "tiny", "--", "x").jobs == 2


def test_options_are_remembered_as_they_were_typed() -> None:
    wanted = asked("--cpus", "0", "--mode", "tcg-virtio", "--set", "memory=1", "tiny", "x").wanted
    assert wanted is not None
    assert wanted.typed == {
        "cpus": "--cpus",
        "mode": "--mode",
        "accel": "--mode",
        "devices": "--mode",
    }


def test_a_report_that_cannot_be_written_is_refused_first(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runs, "events", lambda _: pytest.fail("it was begun"))
    words = ["--report", f"{tmp_path}/none/x", "tiny", "--", "x"]
    with (
        runs.run.make_context("run", words, obj=contexts.Context()) as ctx,
        pytest.raises(errors.HostError, match=r"The report '.*/none/x' could") as caught,
    ):
        runs.run.invoke(ctx)
    assert caught.value.exit_code == 125
