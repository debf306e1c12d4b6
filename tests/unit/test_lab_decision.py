"""When a winner may be declared, and how rarely where there is none."""

from __future__ import annotations

import itertools
import random

import pytest

from vmctl.lab import decision, estimate
from vmctl.lab.decision import Outcome, Question


def question(ours: list[float], theirs: list[float], *, less_is_better: bool = True) -> Question:
    chance = random.Random(1)
    ratio = estimate.paired_ratio(ours, theirs, chance)
    mine, other = (estimate.interval(each, chance) for each in (ours, theirs))
    return Question(
        ours=tuple(ours),
        theirs=tuple(theirs),
        less_is_better=less_is_better,
        ratio=ratio,
        overlap=mine[0] <= other[1] and other[0] <= mine[1],
    )


def test_the_rank_test_counts_all_orders() -> None:
    """Held against counting by hand over every way to split the ranks."""
    ours, theirs = (1.0, 2.0, 5.0), (3.0, 4.0, 6.0, 7.0)
    ranks = sorted((*ours, *theirs))

    def above(chosen: tuple[float, ...]) -> int:
        rest = [value for value in ranks if value not in chosen]
        return sum(one > other for one in chosen for other in rest)

    seen = above(ours)
    extreme = sum(above(chosen) <= seen for chosen in itertools.combinations(ranks, 3))
    assert decision.rank_test(ours, theirs) == pytest.approx(2 * extreme / 35)


def test_six_rounds_that_do_not_mix_are_rare_by_chance() -> None:
    assert decision.rank_test([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]) == pytest.approx(2 / 924)


def test_equal_samples_are_no_difference() -> None:
    assert decision.rank_test([1.0] * 6, [1.0] * 6) == 1.0


def test_nothing_to_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        decision.rank_test([], [1.0])


def test_correction_holds_back_what_one_test_alone_would_let_pass() -> None:
    assert decision.corrected([0.04]) == [True]
    assert decision.corrected([0.04, 0.5, 0.6, 0.9]) == [False] * 4
    assert decision.corrected([0.001, 0.5, 0.02, 0.9]) == [True, False, True, False]


def test_a_clear_difference_is_declared_in_the_right_direction() -> None:
    fast, slow = [1.0, 1.1, 1.05, 0.95, 1.02, 1.0], [2.0, 2.1, 1.9, 2.05, 2.2, 2.0]
    asked = [
        question(fast, slow),
        question(slow, fast),
        question(fast, slow, less_is_better=False),
    ]
    assert decision.decide(asked) == [Outcome.BETTER, Outcome.WORSE, Outcome.WORSE]


def test_intervals_that_overlap_make_no_winner() -> None:
    ours, theirs = [1.0, 1.3, 0.9, 1.2, 1.1, 1.0], [1.1, 1.2, 1.0, 1.3, 1.0, 1.2]
    assert decision.decide([question(ours, theirs)]) == [Outcome.NO_WINNER]


def test_too_few_rounds_make_no_winner_however_clear() -> None:
    assert decision.decide([question([1.0] * 5, [9.0] * 5)]) == [Outcome.TOO_FEW]


def test_a_thing_against_itself_has_no_winner_in_nineteen_reports_of_twenty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reports of 24 rows and 6 rounds, with noise that is skewed and shared within a round."""
    monkeypatch.setattr(estimate, "RESAMPLES", 200)
    chance = random.Random(20260101)
    reports = 60
    false = 0
    for _report in range(reports):
        asked = []
        for _row in range(24):
            load = [chance.lognormvariate(0, 0.3) for _round in range(6)]
            ours, theirs = (
                [each * chance.lognormvariate(0, 0.15) for each in load] for _twin in "ab"
            )
            asked.append(question(ours, theirs))
        outcomes = decision.decide(asked)
        false += any(outcome in (Outcome.BETTER, Outcome.WORSE) for outcome in outcomes)
    assert false / reports <= 0.05
