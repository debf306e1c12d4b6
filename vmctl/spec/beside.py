"""Reads the files that a spec names, bounded and without ever waiting for a pipe."""

from __future__ import annotations

import os
import stat

from vmctl import errors
from vmctl.spec import problems

MOST_BYTES = 1 << 20
"""The longest file that goes into a guest: what a spec itself may have."""


def read(path: str) -> bytes:
    """Return the content of a file.

    Raises NotFoundError where there is none, UsageError where it is no file, cannot be read or has
    more than `MOST_BYTES`.
    """
    shown = problems.quoted(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise errors.NotFoundError(f"there is no file {shown}") from None
    except OSError as problem:
        raise errors.UsageError(f"the file {shown} cannot be read: {problem.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise errors.UsageError(f"{shown} is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as problem:
        raise errors.UsageError(f"the file {shown} cannot be read: {problem.strerror}") from None
    finally:
        os.close(descriptor)
    if len(content) > MOST_BYTES:
        raise errors.UsageError(f"the file {shown} is larger than {MOST_BYTES // 1024} KiB")
    return content
