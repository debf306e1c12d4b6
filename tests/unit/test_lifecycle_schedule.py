from __future__ import annotations

import threading
import time

import pytest

from vmctl import errors
from vmctl.hypervisor import connection as connections
from vmctl.lifecycle import schedule
from vmctl.lifecycle.events import Phase, Step
from vmctl.lifecycle.schedule import Worker


def test_needs_come_first_and_the_rest_at_the_same_time() -> None:
    order: list[str] = []
    together = threading.Barrier(2, timeout=10)

    def work(name: str, worker: Worker) -> None:
        with worker.step("start", patient=True):
            if name in ("a", "b"):
                together.wait()
            order.append(name)

    list(schedule.carry_out(["c", "a", "b"], {"c": ["a", "b"]}, work))
    assert order[-1] == "c"
    assert sorted(order) == ["a", "b", "c"]


def test_a_failure_stops_those_that_need_it_and_nobody_else() -> None:
    begun: list[str] = []

    def work(name: str, worker: Worker) -> None:
        begun.append(name)
        if name == "db":
            raise errors.GuestError("The disk is on fire.")

    events = schedule.carry_out(["web", "db", "mail"], {"web": ["db"]}, work)
    with pytest.raises(errors.GuestError) as failure:
        list(events)
    assert sorted(begun) == ["db", "mail"]
    assert failure.value.exit_code == 8
    assert "'web' was not started" in failure.value.details


def test_steps_tell_their_beginning_and_their_end() -> None:
    def work(name: str, worker: Worker) -> None:
        with worker.step("define") as progress:
            progress("half", 1, 2)
        with pytest.raises(errors.HostError), worker.step("start"):
            raise errors.HostError("No.")

    events = [event for event in schedule.carry_out(["web"], {}, work) if isinstance(event, Step)]
    assert [(event.step, event.phase) for event in events] == [
        ("define", Phase.STARTED),
        ("define", Phase.PROGRESS),
        ("define", Phase.DONE),
        ("start", Phase.STARTED),
        ("start", Phase.FAILED),
    ]
    assert events[1].total == 2
    assert events[-1].note == "No."


def test_no_more_than_libvirt_takes_at_a_time() -> None:
    running, most = 0, 0
    guard = threading.Lock()

    def work(name: str, worker: Worker) -> None:
        nonlocal running, most
        with worker.step("start"):
            with guard:
                running += 1
                most = max(most, running)
            time.sleep(0.02)
            with guard:
                running -= 1

    list(schedule.carry_out([f"m{index}" for index in range(20)], {}, work))
    assert most == connections.CALLS_IN_FLIGHT


def test_an_end_lets_steps_end_and_begins_no_others() -> None:
    done: list[str] = []

    def work(name: str, worker: Worker) -> None:
        with worker.step("one"):
            time.sleep(0.2)
            done.append("one")
        with worker.step("two"):
            done.append("two")

    events = schedule.carry_out(["web"], {}, work)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert done == ["one"]


def test_an_error_of_our_own_is_not_swallowed() -> None:
    def work(name: str, worker: Worker) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(schedule.carry_out(["web"], {}, work))
