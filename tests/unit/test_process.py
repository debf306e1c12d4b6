"""Programs that run beside us, and those that take our place."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from vmctl import errors, interruption, process
from vmctl.deadline import Deadline

pytestmark = pytest.mark.allow_process


def test_a_program_beside_us_ends_with_the_block() -> None:
    with process.beside(["sh", "-c", "sleep 1000 & echo $!; wait"]) as child:
        assert child.stdout is not None
        started = int(os.read(child.stdout.fileno(), 10))
        began = time.monotonic()
    assert child.returncode is not None
    while os.path.exists(f"/proc/{started}"):
        assert time.monotonic() - began < 60
        time.sleep(0.05)
    assert time.monotonic() - began < 60


def test_one_that_ends_by_itself() -> None:
    with process.beside(["sh", "-c", "read word; exit 3"]) as child:
        assert child.stdin is not None
        assert not process.ended(child, 0.05)
        child.stdin.close()
        assert process.ended(child, 60)
    assert child.returncode == 3


def test_one_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_END_SECONDS", 0.2)
    with process.beside(["sh", "-c", "trap '' TERM; echo up; sleep 1000 & wait"]) as child:
        assert child.stdout is not None
        assert os.read(child.stdout.fileno(), 10) == b"up\n"
    assert child.returncode == -9


def test_a_program_that_is_missing() -> None:
    with pytest.raises(errors.HostError, match="no-such-program"):
        process.replace(["no-such-program"])
    with pytest.raises(errors.HostError), process.beside(["no-such-program"]):
        pass


def test_our_place_is_taken() -> None:
    """With our output written out, and signals as a program expects them."""
    code = (
        "from vmctl import process; print('before');"
        "process.replace(['sh', '-c', 'echo after; grep SigIgn /proc/$$/status; exit 7'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    lines = done.stdout.splitlines()
    assert (lines[:2], done.returncode) == (["before", "after"], 7)
    assert int(lines[2].split()[1], 16) & 1 << 12 == 0  # SIGPIPE


def test_an_interruptible_one_ends_with_all_that_it_started() -> None:
    """As soon as nobody wants it any more."""
    unwanted = threading.Event()
    threading.Timer(0.5, unwanted.set).start()
    script = "(trap '' TERM; exec sleep 1000) & echo $!; sleep 1000"
    began = time.monotonic()
    with interruption.asked(unwanted.is_set), pytest.raises(errors.InterruptError):
        process.run(["sh", "-c", script], Deadline.after(600), interruptible=True)
    assert time.monotonic() - began < 60
    with interruption.asked(lambda: True), pytest.raises(errors.InterruptError):
        process.run(["no-such-program"], Deadline.after(600), interruptible=True)


def test_others_go_on_to_their_end() -> None:
    with interruption.asked(lambda: True):
        done = process.run(["sh", "-c", "cat; sleep 0.3; echo end"], Deadline.after(60), stdin=b"a")
    assert done.stdout == b"aend\n"


def test_one_that_is_watched_gives_all_it_printed() -> None:
    script = "cat; sleep 0.3; head -c 300000 /dev/zero; sleep 0.3; echo end >&2; exit 3"
    with interruption.asked(lambda: False):
        done = process.run(
            ["sh", "-c", script], Deadline.after(60), check=False, interruptible=True
        )
    assert (done.stdout, done.stderr, done.status) == (bytes(300_000), b"end\n", 3)


@pytest.mark.parametrize("asked", [True, False])
def test_a_deadline_ends_all_of_it(asked: bool) -> None:
    began = time.monotonic()
    script = "sleep 1000 & sleep 1000"
    with (
        interruption.asked((lambda: False) if asked else (lambda: True)),
        pytest.raises(errors.WaitTimeoutError, match="did not end within 1 s"),
    ):
        process.run(["sh", "-c", script], Deadline.after(1), interruptible=asked)
    assert time.monotonic() - began < 60
