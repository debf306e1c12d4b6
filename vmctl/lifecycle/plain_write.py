"""Writes files that belong to a person: never over another one."""

from __future__ import annotations

import os
import pathlib

from vmctl import errors


def new(path: pathlib.Path, text: str) -> None:
    """Write a file that is not there; one with the same text is taken as written.

    Raises ConflictError for another file of that name, UsageError where it cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError:
        if _same(path, text):
            return
        raise errors.ConflictError(
            f"The file '{path}' is there already, and is another one.",
            hint="Move it away, or name another: --spec FILE",
        ) from None
    except OSError as problem:
        raise errors.UsageError(
            f"The file '{path}' cannot be written: {problem.strerror}.",
            hint="Name another: --spec FILE",
        ) from None


def _same(path: pathlib.Path, text: str) -> bool:
    """Tell whether a file holds this text, or the beginning that a killed writer left of it."""
    try:
        there = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    if text.startswith(there) and there != text:
        path.write_text(text, encoding="utf-8")
        return True
    return there == text
