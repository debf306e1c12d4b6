from __future__ import annotations

import pathlib
import threading
import time
from collections.abc import Callable

import pytest

from tests import replay
from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import console_log, readiness
from vmctl.machine.model import Machine, Ready
from vmctl.machine.state import State

PATIENCE = 20.0


@pytest.fixture
def log(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "console.log"
    path.touch()
    return path


@pytest.fixture
def machine(log: pathlib.Path) -> Machine:
    import dataclasses

    around = replay.surroundings(replay.host("software-kvm-no-flags"))
    made = replay.machines(replay.TEMPLATES / "hello.yaml", around)[0]
    return dataclasses.replace(
        made, console_log=str(log), ready=Ready(when="console", pattern="login:", timeout=1)
    )


def wait(
    machine: Machine,
    *,
    state: Callable[[], tuple[State, str]] = lambda: (State.RUNNING, ""),
    seconds: float = PATIENCE,
    offset: int = 0,
    cancelled: bool = False,
) -> list[str]:
    seen: list[str] = []
    watch = readiness.Watch(machine, offset, readiness.Ways(state))
    watch.wait(Deadline.after(seconds), seen.append, lambda: cancelled)
    return seen


def test_a_pattern_that_comes_in_pieces(machine: Machine, log: pathlib.Path) -> None:
    def guest() -> None:
        for piece in (b"booting\r\nlo", b"gi", b"n: "):
            time.sleep(0.1)
            with log.open("ab") as stream:
                stream.write(piece)

    thread = threading.Thread(target=guest)
    thread.start()
    seen = wait(machine)
    thread.join()
    assert seen[0] in ("booting", "lo", "log", "logi")


def test_what_an_earlier_run_wrote_does_not_count(machine: Machine, log: pathlib.Path) -> None:
    log.write_bytes(b"login: ")
    with pytest.raises(errors.WaitTimeoutError):
        wait(machine, seconds=0.2, offset=log.stat().st_size)
    wait(machine, seconds=0.2, offset=0)


def test_a_timeout_says_what_was_awaited_and_last_seen(machine: Machine, log: pathlib.Path) -> None:
    log.write_bytes(b"one\ntwo\nthe last words\n")
    with pytest.raises(errors.WaitTimeoutError) as failure:
        wait(machine, seconds=0.2)
    assert failure.value.exit_code == 6
    assert "'login:'" in failure.value.message
    assert "the last words" in failure.value.message
    assert "one\ntwo" in failure.value.details
    assert "goes on running" in failure.value.hint


def test_a_silent_console_is_said(machine: Machine) -> None:
    with pytest.raises(errors.WaitTimeoutError, match="silent"):
        wait(machine, seconds=0.1)


def test_a_panic_ends_the_wait_at_once(machine: Machine, log: pathlib.Path) -> None:
    log.write_bytes(b"[ 1.0] Kernel panic - not syncing: Attempted to kill init!\r\n")
    begun = time.monotonic()
    with pytest.raises(errors.GuestError, match="Attempted to kill init") as failure:
        wait(machine)
    assert time.monotonic() - begun < PATIENCE / 2
    assert failure.value.exit_code == 8


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (State.CRASHED, "the guest panicked"),
        (State.FAILED, "KVM could not run the guest"),
        (State.STOPPED, "shut down"),
        (State.ABSENT, ""),
    ],
)
def test_a_guest_that_ended_is_no_timeout(machine: Machine, state: State, reason: str) -> None:
    with pytest.raises(errors.GuestError) as failure:
        wait(machine, state=lambda: (state, reason))
    assert (reason or state.value) in failure.value.message


def test_a_cancelled_wait_is_an_interruption(machine: Machine) -> None:
    with pytest.raises(errors.InterruptError) as failure:
        wait(machine, cancelled=True)
    assert failure.value.exit_code == 130


def test_a_follower_survives_rotation(log: pathlib.Path) -> None:
    follower = console_log.Follower(log)
    log.write_bytes(b"first ")
    assert follower.read() == b"first "
    log.rename(log.with_suffix(".0"))
    log.write_bytes(b"second, and longer than the first")
    assert follower.read() == b"second, and longer than the first"
    log.write_bytes(b"cut")
    assert follower.read() == b"cut"
    log.unlink()
    assert follower.read() == b""


def test_last_lines(log: pathlib.Path) -> None:
    log.write_bytes(b"a\r\nb\r\nc\r\n")
    assert console_log.last_lines(log, 2) == "b\nc"
    assert console_log.last_lines(log, 2, since=6) == "c"
    assert console_log.last_lines(log.with_name("none"), 2) == ""
