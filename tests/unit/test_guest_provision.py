"""Provision steps: which run, what is kept of their output, how their end is told."""

from __future__ import annotations

import dataclasses
import pathlib
import stat
from collections.abc import Callable

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import provision, script
from vmctl.guest.ssh import Access
from vmctl.machine.payload import Step

ONE, TWO, THREE = (Step(name=name, script=name.encode()) for name in ("one", "two", "three"))
DONE = [provision.digest(step) for step in (ONE, TWO, THREE)]
NOWHERE = pathlib.Path("/nonexistent")
ACCESS = Access(
    name="web",
    host="127.0.0.1",
    port=1,
    user="dev",
    key=NOWHERE,
    known_hosts=NOWHERE,
    alias="vmctl-web",
    patience=10,
)


def test_digest_is_over_what_is_done_not_over_how_it_is_called() -> None:
    assert provision.digest(ONE) == provision.digest(
        dataclasses.replace(ONE, name="other", timeout=5.0)
    )
    for other in ({"script": b"2"}, {"user": "dev"}, {"env": {"A": "1"}}):
        changed = dataclasses.replace(ONE, **other)  # type: ignore[arg-type]
        assert provision.digest(ONE) != provision.digest(changed)


@pytest.mark.parametrize(
    ("done", "complete", "first"),
    [
        ([], False, 0),
        (DONE[:1], False, 1),
        (DONE, True, 3),
        (["else"], False, 1),
        (DONE[:2], True, 3),
        ([*DONE, "more"], False, 3),
    ],
)
def test_first_to_run(done: list[str], complete: bool, first: int) -> None:
    assert provision.first_to_run([ONE, TWO, THREE], done, complete=complete) == first


def test_changed_steps_are_those_that_will_not_run() -> None:
    wanted = [ONE, TWO, THREE]
    assert provision.changed(wanted, DONE, complete=True) == []
    assert provision.changed(wanted, [DONE[0], "x", DONE[2]], complete=True) == [TWO]
    assert provision.changed(wanted, DONE[:2], complete=True) == [THREE]
    # The one that failed may have been mended: it runs.
    assert provision.changed(wanted, DONE[:1], complete=False) == []


def playing(monkeypatch: pytest.MonkeyPatch, *pieces: bytes, status: int = 0) -> list[Deadline]:
    """Have every script print these pieces and end with a status."""
    deadlines: list[Deadline] = []

    def run(
        access: Access,
        task: script.Script,
        deadline: Deadline,
        heard: Callable[[bytes], None],
        cancelled: Callable[[], bool],
    ) -> int:
        deadlines.append(deadline)
        for piece in pieces:
            heard(piece)
        return status

    monkeypatch.setattr(script, "run", run)
    return deadlines


def carry_out(log: pathlib.Path, step: Step = ONE) -> list[str]:
    seen: list[str] = []
    provision.run(ACCESS, step, log, seen.append, lambda: False)
    return seen


def test_output_is_kept_and_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    playing(monkeypatch, b"one\ntw", b"o\r\n\x1b[1mthr", b"ee\x1b[0m\n", b"10%\r50%\r", b"99%")
    log = tmp_path / "provision-1.log"
    assert carry_out(log) == ["one", "two", "three", "50%", "99%"]
    assert log.read_bytes() == b"one\ntwo\r\n\x1b[1mthree\x1b[0m\n10%\r50%\r99%"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_log_before_is_kept_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    log = tmp_path / "provision-1.log"
    for text in (b"first\n", b"second\n", b"third\n"):
        playing(monkeypatch, text)
        carry_out(log)
    assert log.read_bytes() == b"third\n"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path != log} == {
        "provision-1.log.1": b"second\n"
    }


def test_log_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(provision, "MOST_OUTPUT", 10)
    playing(monkeypatch, b"12345", b"67890abc", b"more\n")
    log = tmp_path / "log"
    carry_out(log)
    kept = log.read_bytes()
    assert kept.startswith(b"1234567890\n")
    assert b"not kept" in kept
    assert b"more" not in kept


@pytest.mark.parametrize(
    ("status", "how"), [(3, "failed with status 3"), (137, "was killed by signal 9")]
)
def test_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, status: int, how: str
) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(100))
    playing(monkeypatch, lines, b"unfinished", status=status)
    with pytest.raises(errors.GuestError) as caught:
        carry_out(tmp_path / "log")
    assert caught.value.exit_code == 8
    assert caught.value.message == f"Provision step 'one' of machine 'web' {how}."
    assert caught.value.details.splitlines() == [
        *(f"line {number}" for number in range(85, 100)),
        "unfinished",
    ]
    assert str(tmp_path / "log") in caught.value.hint


def test_patience(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    deadlines = playing(monkeypatch)
    carry_out(tmp_path / "log")
    carry_out(tmp_path / "log", dataclasses.replace(ONE, timeout=2.0))
    assert [deadline.seconds for deadline in deadlines] == [18000.0, 20.0]


def test_timeout_says_what_was_seen_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    def run(
        access: Access,
        task: script.Script,
        deadline: Deadline,
        heard: Callable[[bytes], None],
        cancelled: Callable[[], bool],
    ) -> int:
        heard(b"waiting for the moon\n\n")
        deadline.pause(deadline.remaining)
        raise errors.WaitTimeoutError("It did not end.")

    monkeypatch.setattr(script, "run", run)
    with pytest.raises(errors.WaitTimeoutError) as caught:
        carry_out(tmp_path / "log", dataclasses.replace(ONE, timeout=0.01))
    assert "did not end within 0.1 s" in caught.value.message
    assert "'waiting for the moon'" in caught.value.message


def test_a_log_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    playing(monkeypatch)
    with pytest.raises(errors.HostError, match="Cannot use"):
        carry_out(tmp_path / "none" / "log")
