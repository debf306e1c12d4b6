"""Combinations of values: each is a run of its own. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import re
from collections.abc import Sequence

from vmctl import errors

MOST = 256
"""Combinations of one command; more are a slip of the keyboard."""

_HASH = 8
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9._=,+-]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Combination:
    """One value for each axis, in the order of the command line."""

    values: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """What people are shown; empty where there is no matrix."""
        return " ".join(f"{key}={value}" for key, value in self.values)

    @property
    def file_name(self) -> str:
        """A name for files and directories of this combination, and of no other one.

        It ends with a hash where it cannot have all characters of the values.
        """
        whole = ",".join(f"{key}={value}" for key, value in self.values)
        name = _NOT_IN_FILE_NAMES.sub("_", whole)
        if name == whole:
            return name
        return f"{name}-{hashlib.sha256(os.fsencode(whole)).hexdigest()[:_HASH]}"

    @property
    def env(self) -> dict[str, str]:
        """The variables that the command gets."""
        return {key: value for key, value in self.values if not _is_key(key)}

    @property
    def options(self) -> dict[str, str]:
        """The keys of the spec that are set."""
        return {key: value for key, value in self.values if _is_key(key)}


def _is_key(name: str) -> bool:
    """Tell a key of the spec, in lower case, from an environment variable."""
    return name == name.lower()


def combinations(axes: Sequence[str]) -> list[Combination]:
    """Return all combinations of axes as `KEY=V1,V2`; one that is empty where there is no axis.

    Raises UsageError.
    """
    parsed = [_axis(axis) for axis in axes]
    keys = [key for key, _ in parsed]
    doubled = next((key for key in keys if keys.count(key) > 1), None)
    if doubled is not None:
        raise errors.UsageError(
            f"'--matrix {doubled}=…' is given twice.",
            hint=f"Put all values into one: --matrix {doubled}=A,B,C",
        )
    sides = [[(key, value) for value in values] for key, values in parsed]
    found = [Combination(values) for values in itertools.product(*sides)]
    if len(found) > MOST:
        raise errors.UsageError(
            f"The matrix has {len(found)} combinations; {MOST} are the most.",
            hint="Split it into several commands.",
        )
    return found


def _axis(text: str) -> tuple[str, list[str]]:
    key, equals, rest = text.partition("=")
    values = rest.split(",")
    if not equals or not _VARIABLE.fullmatch(key) or not all(values):
        raise errors.UsageError(
            f"--matrix wants KEY=VALUE,VALUE; got '{text}'.",
            hint="For example: --matrix PY=3.11,3.12 --matrix mode=full,paravirt",
        )
    if len(set(values)) != len(values):
        raise errors.UsageError(f"'--matrix {text}' has a value twice.")
    return key, values
