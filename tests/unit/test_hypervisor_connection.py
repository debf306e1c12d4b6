from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vmctl.hypervisor import connection as connections


def test_only_a_few_threads_call_at_a_time() -> None:
    calls = connections.Calls(2)
    together = threading.Barrier(2)
    guard = threading.Lock()
    now = most = 0

    def work(_number: int) -> None:
        nonlocal now, most
        with calls.held():
            with guard:
                now += 1
                most = max(most, now)
            # Two are inside at once, or this breaks.
            together.wait(timeout=10)
            with guard:
                now -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert most == 2


def test_a_thread_that_calls_already_goes_on() -> None:
    calls = connections.Calls(1)
    with calls.held(), calls.held():
        pass
    with pytest.raises(ValueError, match="gone wrong"), calls.held():
        raise ValueError("gone wrong")
    with calls.held():
        pass


def test_a_function_that_asks_waits_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CALLS", connections.Calls(1))
    begun = threading.Event()

    @connections.in_turn
    def asked() -> str:
        begun.set()
        return "answer"

    with ThreadPoolExecutor(1) as pool:
        with connections.CALLS.held():
            answer = pool.submit(asked)
            assert not begun.wait(0.05)
        assert answer.result(timeout=10) == "answer"
