"""Programs that run beside us, and those that take our place."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from vmctl import errors, process

pytestmark = pytest.mark.allow_process


def test_a_program_beside_us_ends_with_the_block() -> None:
    with process.beside(["sh", "-c", "echo up; sleep 1000"]) as child:
        assert child.stdout is not None
        assert os.read(child.stdout.fileno(), 10) == b"up\n"
        began = time.monotonic()
    assert child.returncode is not None
    assert time.monotonic() - began < 60


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
