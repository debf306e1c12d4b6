"""Medians, and how sure a ratio of two contenders is. Pure; random numbers are handed in."""

from __future__ import annotations

import dataclasses
import random
import statistics
from collections.abc import Sequence

RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST = 6
"""Rounds below which no interval is given: all of 5 values lie above the true median in 1 case of
32, and all below it in as many, so that not even their whole range holds it with 95 %."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the rounds' ratios with its bootstrap interval, if there were enough rounds."""

    value: float
    low: float
    high: float
    rounds: int

    @property
    def known(self) -> bool:
        """Tell whether there is an interval."""
        return self.rounds >= FEWEST

    def __str__(self) -> str:
        """The ratio as the tables have it."""
        return f"{self.value:.2f}" + (f" ({self.low:.2f} to {self.high:.2f})" if self.known else "")

    @property
    def verdict(self) -> str:
        """What the interval allows to say; nothing where it contains 1."""
        if not self.known:
            return "too few rounds"
        if self.high < 1:
            return "less"
        if self.low > 1:
            return "more"
        return "no difference shown"


def paired_ratio(ours: Sequence[float], theirs: Sequence[float], chance: random.Random) -> Ratio:
    """Compare two contenders that ran in the same rounds, `ours` divided by `theirs`.

    Both of a pair ran within seconds of each other, so that load which comes and goes over the
    rounds hits them alike. Raises ValueError for sequences that are no pairs of positive numbers.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} and {len(theirs)} samples are no pairs")
    if min(*ours, *theirs) <= 0:
        raise ValueError("a duration or size of 0 or less has no ratio")
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    low, high = interval(ratios, chance)
    return Ratio(statistics.median(ratios), low, high, len(ratios))


def interval(values: Sequence[float], chance: random.Random) -> tuple[float, float]:
    """Return the bootstrap interval (percentile method) of the median of `values`."""
    medians = sorted(
        statistics.median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    return quantile(medians, (1 - CONFIDENCE) / 2), quantile(medians, (1 + CONFIDENCE) / 2)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the sorted values lie, interpolated."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
