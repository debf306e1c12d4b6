"""Writes files that belong to a person, such as specs: whole, and over another only when told."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import tempfile

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""What link(2) says on file systems that have no hard links, as FAT."""


def write(path: pathlib.Path, text: str, *, replace: bool = False) -> None:
    """Write a file that is not there; with `replace` put a whole one in the place of another.

    A kill leaves the old file or the new one. Raises FileExistsError, OSError.
    """
    if not replace and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
    mask = os.umask(0)
    os.umask(mask)
    descriptor, draft = tempfile.mkstemp(prefix=".vmctl-", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            os.fchmod(descriptor, 0o666 & ~mask)
            stream.flush()
            os.fsync(descriptor)
        if replace:
            os.replace(draft, path)
        else:
            _link(draft, path, text)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


def _link(draft: str, path: pathlib.Path, text: str) -> None:
    """Give a finished file its name, which a rename would take away from another file."""
    try:
        os.link(draft, path)
    except OSError as problem:
        if problem.errno not in _NO_LINKS:
            raise
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
