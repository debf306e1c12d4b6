"""Refuses regular expressions that are not valid, or that could keep a matcher busy for hours.

A console line that a guest writes is matched against the user's pattern. Backtracking is bounded by
construction: the ways to match a line of length n are at most `_MOST_WAYS` times n to the power of
`_MOST_OPEN`. Whoever matches clips lines to `LONGEST_LINE` characters.
"""

from __future__ import annotations

import importlib
import re
import warnings
from typing import Any

LONGEST = 200
LONGEST_LINE = 1024

_MOST_WAYS = 1000
_MOST_OPEN = 2
_LARGEST_COUNT = 64
_ATOMS = {"LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"}
_REPEATS = {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}


def objection(text: str) -> str:
    """Return what is wrong with a regular expression, empty when it may be used."""
    if not text:
        return "must not be empty"
    if len(text) > LONGEST:
        return f"must have at most {LONGEST} characters"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(text)
            parsed: Any = importlib.import_module("re._parser").parse(text)
    except (re.error, OverflowError, RecursionError) as problem:
        return f"must be a valid regular expression ({problem})"
    try:
        ways, unbounded = _cost(parsed)
    except _TooCostlyError as problem:
        return str(problem)
    if ways > _MOST_WAYS or unbounded > _MOST_OPEN:
        return f"must be simpler: at most {_MOST_OPEN} of '*' and '+', and few alternatives"
    return ""


class _TooCostlyError(Exception):
    """A construct that is refused whatever it contains."""


def _cost(sequence: Any) -> tuple[int, int]:
    """Return the number of ways to match a parsed sequence, and of its unbounded repeats."""
    ways, unbounded = 1, 0
    for operator, argument in sequence:
        factor, more = _item_cost(str(operator), argument)
        ways, unbounded = min(ways * factor, _MOST_WAYS + 1), unbounded + more
    return ways, unbounded


def _item_cost(operator: str, argument: Any) -> tuple[int, int]:
    if operator in _ATOMS:
        return 1, 0
    if operator == "SUBPATTERN":
        return _cost(argument[-1])
    if operator == "ATOMIC_GROUP":
        return _cost(argument)
    if operator == "BRANCH":
        costs = [_cost(branch) for branch in argument[1]]
        return sum(ways for ways, _ in costs), max(open_ for _, open_ in costs)
    if operator in _REPEATS:
        return _repeat_cost(*argument)
    raise _TooCostlyError("must not look ahead or behind, nor refer back to a group")


def _repeat_cost(least: int, most: int, content: Any) -> tuple[int, int]:
    least, most = int(least), int(most)
    ways, unbounded = _cost(content)
    if most > 1 and content.getwidth()[0] == 0:
        raise _TooCostlyError("must not repeat something that may be empty")
    if unbounded or ways > 1:
        if most > 1:
            raise _TooCostlyError("must not repeat something that itself varies, as (a+)+ does")
        return ways + 1, unbounded
    if most <= _LARGEST_COUNT:
        return most - least + 1, 0
    return 1, 1
