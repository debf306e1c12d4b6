"""Who gets a slot, in what order, and what is worked on next."""

from __future__ import annotations

import pathlib

import pytest

from vmctl.guest.ssh import Access
from vmctl.runner.pooling.ledger import Ledger, State
from vmctl.runner.pooling.ready import Ready


def ready(number: int) -> Ready:
    access = Access(
        name=f"p-{number}",
        host="127.0.0.1",
        port=20000 + number,
        user="root",
        key=pathlib.Path("/store/id"),
        known_hosts=pathlib.Path("/store/known"),
        alias="x",
    )
    return Ready(machine=f"p-{number}", access=access, generation=f"g{number}", key="k")


def filled(slots: int, refills: int = 2) -> Ledger:
    """A ledger whose slots are all ready, the first one since the longest time."""
    ledger = Ledger(slots, refills, 0.0)
    for number in range(1, slots + 1):
        begun = ledger.begin(float(number))
        assert begun is not None
        ledger.renewed(begun.number, ready(begun.number), float(number))
    return ledger


def given(ledger: Ledger, now: float) -> list[tuple[int, int]]:
    return [(client, slot.number) for client, slot in ledger.matched(lambda _slot: True, now)]


def test_first_come_first_served() -> None:
    ledger = filled(2)
    for client in (7, 5, 6):
        ledger.ask(client, 10.0)
    assert given(ledger, 10.0) == [(7, 1), (5, 2)]
    assert [each.client for each in ledger.queue] == [6]
    ledger.leave(7, 11.0)
    assert given(ledger, 11.0) == []
    begun = ledger.begin(11.0)
    assert begun is not None and begun.number == 1
    ledger.renewed(1, ready(1), 13.0)
    assert given(ledger, 13.0) == [(6, 1)]
    assert ledger.counts.longest_claim == 3.0


def test_a_slot_is_never_given_twice() -> None:
    ledger = filled(3)
    for client in range(16):
        ledger.ask(client, 10.0)
    assert sorted(slot for _, slot in given(ledger, 10.0)) == [1, 2, 3]
    assert given(ledger, 10.0) == []
    for round_ in range(13):
        slot = ledger.leave(round_, 20.0 + round_)
        assert slot is not None and slot.ready is None
        assert ledger.begin(20.0 + round_) is slot
        ledger.renewed(slot.number, ready(slot.number), 20.0 + round_)
        assert given(ledger, 20.0 + round_) == [(round_ + 3, slot.number)]


def test_who_leaves_the_queue_gets_nothing() -> None:
    ledger = filled(1)
    for client in (1, 2, 3):
        ledger.ask(client, 5.0)
    ledger.leave(1, 6.0)
    assert given(ledger, 6.0) == [(2, 1)]
    assert ledger.leave(3, 7.0) is None
    assert not ledger.queue
    assert ledger.counts.abandoned == 2
    assert not ledger.knows(3) and ledger.knows(2)


def test_a_dead_guest_is_not_given_away() -> None:
    ledger = filled(2)
    ledger.ask(1, 5.0)
    found = [slot.number for _, slot in ledger.matched(lambda slot: slot.number == 2, 5.0)]
    assert found == [2]
    assert ledger.slots[1].state is State.WAITING


def test_budget() -> None:
    ledger = Ledger(5, 2, 0.0)
    first, second = ledger.begin(1.0), ledger.begin(1.0)
    assert first is not None and second is not None
    assert ledger.begin(1.0) is None
    ledger.renewed(first.number, ready(first.number), 2.0)
    third = ledger.begin(2.0)
    assert third is not None and third.number == 3


def test_failures_come_again_later_and_behind_others() -> None:
    ledger = Ledger(2, 1, 0.0)
    slot = ledger.begin(0.0)
    assert slot is not None
    ledger.failed(slot.number, "No room.", "Free some.", 0.0)
    other = ledger.begin(100.0)
    assert other is not None and other.number == 2
    ledger.renewed(2, ready(2), 100.0)
    assert ledger.begin(100.0) is slot
    waits = []
    for _ in range(8):
        ledger.failed(1, "No room.", "", 100.0)
        retry = ledger.next_retry()
        assert retry is not None
        waits.append(retry - 100.0)
        assert ledger.begin(99.0 + waits[-1]) is None
        assert ledger.begin(100.0 + waits[-1]) is slot
    assert waits == sorted(waits) and waits[-1] == 60.0
    ledger.renewed(1, ready(1), 200.0)
    assert slot.problem == "" and slot.failures == 0


def test_only_where_all_failed_there_is_no_hope() -> None:
    ledger = filled(2)
    ledger.slots[1].state = State.FAILED
    assert ledger.hopeless() is None
    ledger.slots[2].state = State.FAILED
    assert ledger.hopeless() is ledger.slots[1]
    assert Ledger(0, 1, 0.0).hopeless() is None


def test_a_drained_pool_gives_nothing() -> None:
    ledger = filled(1)
    ledger.drained = True
    ledger.ask(1, 2.0)
    assert given(ledger, 2.0) == []


@pytest.mark.parametrize("claimed", [True, False])
def test_slots_that_go(claimed: bool) -> None:
    """A slot goes at once where it is free, and when its job has ended where it is not."""
    ledger = filled(2)
    if claimed:
        ledger.ask(1, 3.0)
        ledger.ask(2, 3.0)
        assert len(given(ledger, 3.0)) == 2
    ledger.resize(1, 4.0)
    if claimed:
        assert ledger.begin(4.0) is None
        ledger.leave(2, 5.0)
    begun = ledger.begin(6.0)
    assert begun is not None and begun.number == 2 and begun.unwanted
    ledger.removed(2, 7.0)
    assert list(ledger.slots) == [1]


def test_one_that_is_wanted_again_while_it_goes_comes_back() -> None:
    ledger = filled(2)
    ledger.resize(1, 4.0)
    begun = ledger.begin(4.0)
    assert begun is not None and begun.number == 2
    ledger.resize(2, 5.0)
    ledger.removed(2, 6.0)
    again = ledger.begin(6.0)
    assert again is not None and (again.number, again.unwanted, again.adopt) == (2, False, False)


def test_one_that_was_under_way_goes_afterwards() -> None:
    ledger = Ledger(2, 2, 0.0)
    ledger.begin(0.0), ledger.begin(0.0)
    ledger.resize(1, 1.0)
    ledger.renewed(2, ready(2), 2.0)
    begun = ledger.begin(2.0)
    assert begun is not None and begun.unwanted


def test_slots_of_earlier_times_are_known() -> None:
    ledger = Ledger(1, 1, 0.0)
    ledger.resize(1, 0.0, [3])
    assert [slot.unwanted for slot in ledger.slots.values()] == [False, True]
    ledger.left(ledger.slots[3], 1.0)
    assert ledger.slots[3].state is State.LEFT
    ledger.used(ledger.slots[3], 2.0)
    assert not ledger.slots[3].adopt


def test_what_is_told_of_a_slot_can_be_read_back() -> None:
    told = ready(3)
    assert Ready.from_dict(told.as_dict()) == told
