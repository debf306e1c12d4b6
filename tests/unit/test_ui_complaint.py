"""Errors look the same everywhere and show no one's control characters."""

from __future__ import annotations

import json

import pytest

from vmctl import errors
from vmctl.spec import problems
from vmctl.ui import complaint

FAILURE = errors.HostError(
    "KVM is not usable: '/dev/kvm' is \x1b[1mmissing\x1b[0m.",
    hint="Load the module: sudo modprobe kvm_intel",
    details="first\n\tsecond\r\x07\n",
)


def test_message_details_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint.show(FAILURE) == 5
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error: KVM is not usable: '/dev/kvm' is \\x1b[1mmissing\\x1b[0m.",
        "    first",
        "    \tsecond\\x0d\\x07",
        "hint: Load the module: sudo modprobe kvm_intel",
    ]


def test_json_goes_to_standard_output_beside_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint.show(FAILURE, as_json=True) == 5
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    data = json.loads(captured.out)["error"]
    assert data["message"] == FAILURE.message
    assert data["hint"] == FAILURE.hint
    assert data["code"] == 5


def problem(line: int) -> problems.Problem:
    return problems.Problem(
        file="web.yaml",
        line=line,
        column=1,
        length=6,
        message="There is no key 'memroy' here.",
        suggestion="did you mean 'memory'?",
        source_line="memroy: 2GiB",
    )


def test_problems_of_a_spec_are_shown_under_the_users_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert complaint.show(problems.SpecError([problem(3), problem(1)]), as_json=True) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert lines[0].startswith("web.yaml:1:1: error: There is no key 'memroy' here.")
    assert lines[1:3] == ["  memroy: 2GiB", "  ^^^^^^"]
    assert [line for line in lines if line.startswith("web.yaml:3:1")]
    data = json.loads(captured.out)["error"]
    assert data["code"] == 2
    assert [entry["line"] for entry in data["problems"]] == [1, 3]


def test_an_unforeseen_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint.show(KeyError("x\ny")) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: vmctl met an error of its own: KeyError: 'x\\ny'.",
        "hint: Run it again with --debug for the traceback.",
    ]


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError) as caught:
        raise KeyError("x")
    assert complaint.show(caught.value, debug=True) == 1
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert "test_ui_complaint.py" in text
    assert "--debug" not in text


def test_an_interruption_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint.show(errors.InterruptError("Interrupted.")) == 130
    assert capsys.readouterr().err == "Interrupted.\n"
