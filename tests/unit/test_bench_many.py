from __future__ import annotations

import pytest

from bench import many
from bench.rounds import Group, Round

SIZES = (50, 100, 200)


def group(size: int, *costs: float) -> Group:
    """A population whose rounds took a fixed time and a cost for each machine."""
    rounds = [
        Round((), {name: {"wall_seconds": 0.5 + cost * size} for name in many.NOTES})
        for cost in costs
    ]
    return Group("a list", many.LIST, many.METRICS, many.NOTES, rounds)


def test_slope_is_what_a_hundred_machines_more_cost() -> None:
    found = many.slope([group(size, 0.001, 0.003) for size in SIZES], SIZES)
    assert found.values(many.PS, many.SLOPE) == pytest.approx([0.1, 0.3])
    assert found.values(many.LIST, many.SLOPE) == pytest.approx([0.1, 0.3])


def test_slope_takes_whole_rounds_only() -> None:
    groups = [group(50, 0.001, 0.001), group(100, 0.001), group(200, 0.001, 0.001)]
    assert len(many.slope(groups, SIZES).rounds) == 1


def test_slope_that_falls_is_noise_and_stays_above_nothing() -> None:
    found = many.slope([group(size, -0.001) for size in SIZES], SIZES)
    assert found.values(many.PS, many.SLOPE) == [pytest.approx(1e-4)]
