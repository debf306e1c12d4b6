"""Who runs when: every contender once in each round, in an order drawn anew each time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

_Contender = TypeVar("_Contender")

WARM_UP = 0
"""The number of the round that is thrown away: it fills caches of files and of compiled code."""


def interleaved(
    contenders: Sequence[_Contender], count: int, chance: random.Random
) -> Iterator[tuple[int, list[_Contender]]]:
    """Yield the rounds with their numbers, the warm-up first, then `count` that count.

    Load that comes and goes over the rounds hits all contenders alike, and nobody is always first
    ("randomised multiple interleaved trials", Abedi and Brecht, ICPE 2017).
    """
    for number in range(WARM_UP, count + 1):
        yield number, chance.sample(list(contenders), len(contenders))
