"""Environment variables for a command in a guest, as a command line gives them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from vmctl import errors


def of_words(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Read NAME=VALUE, or NAME for one that is passed on from here; raises UsageError."""
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name not in os.environ:
            raise errors.UsageError(
                f"The environment has no variable '{name}' to pass on.",
                hint=f"Give it a value: -e {name}=VALUE",
            )
        yield name, value if equals else os.environ[name]


def of_lines(lines: Iterable[str], file: str = "") -> Iterator[tuple[str, str]]:
    """Read a file of NAME=VALUE lines: values as they are, `#` begins a comment line.

    Raises UsageError, which names the file and the line.
    """
    from vmctl.guest import shell

    called = f"'{file}'" if file else "the file of variables"
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        name, equals, value = text.partition("=")
        if text and not text.startswith("#"):
            if not equals:
                raise errors.UsageError(
                    f"Line {number} of {called} is not NAME=VALUE.",
                    hint="One variable on a line; the value is taken as it is, without quotes.",
                )
            try:
                shell.exports({name: value})
            except errors.UsageError as problem:
                raise errors.UsageError(
                    f"Line {number} of {called}: {problem.message}",
                    hint="One variable on a line, as NAME=VALUE: no 'export', no space before =.",
                ) from None
            yield name, value
