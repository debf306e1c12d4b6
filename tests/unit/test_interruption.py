"""Who is asked whether anybody still wants what a thread does."""

from __future__ import annotations

import pathlib
import threading

import pytest

from vmctl import errors, interruption
from vmctl.deadline import Deadline
from vmctl.store import locks


def test_each_thread_has_its_own_and_blocks_nest() -> None:
    interruption.stop_if_unwanted()
    heard: list[bool] = []
    with interruption.asked(lambda: True):
        thread = threading.Thread(target=lambda: heard.append(interruption.possible()))
        thread.start()
        thread.join()
        with interruption.asked(lambda: False):
            interruption.stop_if_unwanted()
        with pytest.raises(errors.InterruptError):
            interruption.stop_if_unwanted()
    assert heard == [False]
    assert not interruption.possible()


def test_nobody_waits_for_a_lock_in_vain(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "lock"
    with (
        locks.hold(path, None, "It"),
        interruption.asked(lambda: True),
        pytest.raises(errors.InterruptError),
        locks.hold(path, Deadline.after(600), "It"),
    ):
        pass
