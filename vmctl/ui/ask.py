"""Asks the person at the terminal."""

from __future__ import annotations

import sys

from vmctl import errors
from vmctl.ui import escape, terminal


def confirm(question: str, *, yes: bool) -> bool:
    """Ask a yes-or-no question; anything but yes is a no, and so is the end of input.

    `yes` (the option -y) answers without asking. Raises UsageError where nobody can answer.
    """
    if yes:
        return True
    shown = escape.printable(question)
    if not terminal.is_tty(sys.stdin):
        raise errors.UsageError(
            f"There is no terminal to answer this on: {shown}",
            hint="Add -y to the command to answer yes.",
        )
    # Standard error: standard output may lead into a pipe.
    print(f"{shown} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        print(file=sys.stderr)
    return answer.strip().casefold() in ("y", "yes")
