"""The statistics of lab and bench: medians, paired ratios, their intervals."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmctl.lab import estimate


def ratio(ours: list[float], theirs: list[float]) -> estimate.Ratio:
    return estimate.paired_ratio(ours, theirs, random.Random(1))


def test_a_constant_ratio_has_no_width() -> None:
    found = ratio([2.0, 4.0, 6.0] * 2, [1.0, 2.0, 3.0] * 2)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)
    assert found.verdict == "more"


def test_load_that_hits_a_whole_round_does_not_show() -> None:
    """Twice as slow in every round, ten times as slow in some rounds: still a ratio of 0.5."""
    load = [1.0, 10.0, 1.0, 10.0, 5.0, 1.0, 1.0, 2.0]
    found = ratio([1.0 * each for each in load], [2.0 * each for each in load])
    assert found.value == pytest.approx(0.5)
    assert found.verdict == "less"


def test_an_interval_around_one_allows_no_verdict() -> None:
    found = ratio([1.0, 1.2, 0.9, 1.1, 0.8, 1.0], [1.0] * 6)
    assert found.low < 1 < found.high
    assert found.verdict == "no difference shown"


def test_too_few_rounds_allow_no_interval_and_no_verdict() -> None:
    found = ratio([2.0] * 5, [1.0] * 5)
    assert str(found) == "2.00"
    assert found.verdict == "too few rounds"
    assert str(ratio([2.0] * 6, [1.0] * 6)) == "2.00 (2.00 to 2.00)"


def test_one_bad_round_moves_the_median_little() -> None:
    assert ratio([1.0] * 9 + [100.0], [1.0] * 10).value == 1.0


@pytest.mark.parametrize(
    ("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([-1.0], [1.0])]
)
def test_what_is_no_pair_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError):
        ratio(ours, theirs)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    first, second = (estimate.interval(values, random.Random(7)) for _ in range(2))
    assert first == second


@given(st.lists(st.floats(0.01, 1000.0), min_size=1, max_size=12))
def test_the_interval_holds_the_median_and_stays_within_the_values(values: list[float]) -> None:
    low, high = estimate.interval(values, random.Random(3))
    assert min(values) <= low <= high <= max(values) * (1 + 1e-12)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 2.5), (1.0, 4.0), (0.25, 1.75)])
def test_a_quantile_is_interpolated(share: float, expected: float) -> None:
    assert estimate.quantile([1.0, 2.0, 3.0, 4.0], share) == pytest.approx(expected)
