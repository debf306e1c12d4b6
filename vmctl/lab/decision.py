"""When one contender may be called faster than another. Pure.

Three things must agree. The bootstrap intervals of the two medians must not overlap; the interval
of their ratio must not contain 1; and the rank test must hold after it is corrected for the number
of questions that one report asks. A report with forty rows would else call two of them "faster"
where a mode is compared with itself.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
from collections.abc import Sequence

from vmctl.lab import estimate

SIGNIFICANCE = 0.05
"""How often a comparison of a thing with itself may find a winner in any of its rows."""


class Outcome(enum.StrEnum):
    """What the samples allow to say of a contender beside the baseline."""

    BETTER = "better"
    WORSE = "worse"
    NO_WINNER = "no winner"
    TOO_FEW = "too few rounds"


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """One contender and the baseline in one row: values of the same rounds, in their order."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    less_is_better: bool
    ratio: estimate.Ratio
    overlap: bool

    @property
    def chance(self) -> float:
        """How likely samples at least as far apart are where there is no difference."""
        return rank_test(self.ours, self.theirs)


def decide(questions: Sequence[Question]) -> list[Outcome]:
    """Answer all questions of a report together, in their order.

    The correction is that of Benjamini and Hochberg (1995): it keeps the share of false winners
    among the winners at 5 %, and where nothing differs at all, any winner at all at 5 %.
    """
    chances = [question.chance for question in questions]
    holds = corrected(chances)
    return [_one(question, held) for question, held in zip(questions, holds, strict=True)]


def _one(question: Question, held: bool) -> Outcome:
    if not question.ratio.known:
        return Outcome.TOO_FEW
    contains_one = question.ratio.low <= 1 <= question.ratio.high
    if question.overlap or contains_one or not held:
        return Outcome.NO_WINNER
    less = question.ratio.value < 1
    return Outcome.BETTER if less is question.less_is_better else Outcome.WORSE


def corrected(chances: Sequence[float]) -> list[bool]:
    """Tell which of several tests hold together at the level of SIGNIFICANCE."""
    count = len(chances)
    order = sorted(range(count), key=lambda index: chances[index])
    passed = 0
    for place, index in enumerate(order, start=1):
        if chances[index] <= SIGNIFICANCE * place / count:
            passed = place
    held = set(order[:passed])
    return [index in held for index in range(count)]


def rank_test(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the two-sided exact probability of the Mann-Whitney U test; ties count one half.

    Raises ValueError for no samples.
    """
    if not ours or not theirs:
        raise ValueError("there is nothing to rank")
    above = sum((our > their) + (our == their) / 2 for our in ours for their in theirs)
    least = math.ceil(min(above, len(ours) * len(theirs) - above))
    ways = sum(_ways(len(ours), len(theirs), rank) for rank in range(least + 1))
    return min(1.0, 2 * ways / math.comb(len(ours) + len(theirs), len(ours)))


@functools.cache
def _ways(first: int, second: int, rank: int) -> int:
    """Return in how many orders of two samples exactly `rank` pairs stand the wrong way round."""
    if rank < 0:
        return 0
    if first == 0 or second == 0:
        return int(rank == 0)
    return _ways(first - 1, second, rank - second) + _ways(first, second - 1, rank)
