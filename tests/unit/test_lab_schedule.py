"""Who runs when."""

from __future__ import annotations

import random

from vmctl.lab import schedule


def test_each_round_has_everybody_once_and_the_warm_up_is_number_zero() -> None:
    rounds = list(schedule.interleaved(["a", "b", "c"], 4, random.Random(1)))
    assert [number for number, _order in rounds] == [0, 1, 2, 3, 4]
    assert all(sorted(order) == ["a", "b", "c"] for _number, order in rounds)


def test_the_order_changes_and_is_the_same_for_the_same_seed() -> None:
    def orders(seed: int) -> list[list[str]]:
        return [order for _n, order in schedule.interleaved("abcd", 20, random.Random(seed))]

    assert orders(7) == orders(7)
    assert len({tuple(order) for order in orders(7)}) > 5
