"""What a guest's console says of a run."""

from __future__ import annotations

import pytest

from vmctl.lab import guest

DOUBLE_FAULT = """\
lab:/# [6n[   22.962600] traps: PANIC: double fault, error_code: 0x0
[   22.964159] double fault: 0000 [#1] PREEMPT SMP NOPTI
[   22.964741] CPU: 0 PID: 215 Comm: tar Tainted: G        W          6.1.0-56-amd64 #1
"""
OOPS = "[    3.1] Oops: 0002 [#1] PREEMPT SMP NOPTI\n"
USERS = "[   9.2] traps: probe[214] general protection fault ip:401c2 sp:7ffd error:0 in probe\n"


@pytest.mark.parametrize(("said", "what"), [(DOUBLE_FAULT, "double fault"), (OOPS, "Oops: 0002")])
def test_a_kernel_that_went_wrong_is_not_waited_for(said: str, what: str) -> None:
    assert guest.died(said).startswith("the guest's kernel failed: ")
    assert what in guest.died(said)


@pytest.mark.parametrize("said", ["", USERS, "vmctl-tiny: ready\n[    1.0] Linux version 6.1 (#1)"])
def test_a_fault_of_a_program_is_the_programs_affair(said: str) -> None:
    assert guest.died(said) == ""
