from __future__ import annotations

import threading

import pytest

from vmctl import errors
from vmctl.runner.job import Outcome
from vmctl.runner.matrix import Combination
from vmctl.runner.run import Result
from vmctl.runner.timings import Timings
from vmctl.ui import running
from vmctl.ui.running import Prefixed


def test_lines_are_whole_and_labelled() -> None:
    written: list[bytes] = []
    sink = Prefixed(written.append, "A=ü", threading.Lock())
    for piece in (b"on", b"e\ntwo\nth", b"ree"):
        sink(piece)
    sink.finish()
    sink.finish()
    assert b"".join(written) == "[A=ü] one\n[A=ü] two\n[A=ü] three\n".encode()


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    written: list[bytes] = []
    sink = Prefixed(written.append, "A=1", threading.Lock())
    for _ in range(20):
        sink(b"." * 10_000)
    assert len(written) >= 2


def result(
    outcome: Outcome, *values: tuple[str, str], mode: str = "paravirt", name: str = "run-1"
) -> Result:
    return Result(
        combination=Combination(values), timings=Timings(), outcome=outcome, name=name, mode=mode
    )


def test_no_two_columns_have_one_name(capsys: pytest.CaptureFixture[str]) -> None:
    values = (("mode", "auto"), ("STATUS", "x"), ("PY", "3"))
    running.show_matrix([result(Outcome(status=0), *values)])
    header = capsys.readouterr().err.splitlines()[0].split("  ")
    names = [name.strip() for name in header if name]
    assert names == ["MATRIX MODE", "MATRIX STATUS", "PY", "MODE", "STATUS", "SECONDS", "WHY"]


def test_what_ends_the_run_is_no_remark_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    problem = errors.NotFoundError("'x' was not copied out: there is none")
    remarks = (problem.message, "left out of 'y': z")
    running.show_remarks([result(Outcome(status=125, problem=problem, remarks=remarks))])
    assert capsys.readouterr().err == "! run-1  left out of 'y': z\n"
