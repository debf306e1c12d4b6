"""Where a file that a spec names lies: beside the text that names it, in the spec's directory."""

from __future__ import annotations

import os


class OutsideError(Exception):
    """The file lies outside of the directory; `found` is where, symbolic links followed."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


def located(written: str, *, beside: str, within: str | None, itself: bool = False) -> str:
    """Return the absolute path of `written`, symbolic links followed; it need not exist.

    Relative paths begin in `beside`. Raises OutsideError unless it lies below `within`, or is
    `itself`; None is everywhere.
    """
    found = os.path.realpath(os.path.join(beside, written))
    if within is not None:
        top = os.path.realpath(within)
        if os.path.commonpath([top, found]) != top or (found == top and not itself):
            raise OutsideError(found)
    return found


def holds(directory: str, path: str) -> bool:
    """Tell whether `path` is `directory` or lies below it; both absolute."""
    return os.path.commonpath([directory, path]) == directory
