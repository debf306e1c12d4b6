"""Files that a run leaves with the person: what cannot be written is refused before it begins."""

from __future__ import annotations

import os
import pathlib

from vmctl import errors
from vmctl.store import plain_files


def require(path: str, what: str, *, replaced: bool) -> None:
    """Raise HostError where a file could not be written.

    `replaced` says that a new one takes its place, so that its directory has to be writable.
    """
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path):
        why = "it is a directory"
    elif os.path.exists(path) and not (replaced and not _in_place(path)):
        why = "" if os.access(path, os.W_OK) else "there is no right to"
    elif not os.path.isdir(directory):
        why = f"there is no directory '{directory}'"
    else:
        why = "" if os.access(directory, os.W_OK | os.X_OK) else "there is no right to"
    if why:
        raise errors.HostError(
            f"The {what} '{path}' could not be written: {why}. Nothing was started.",
            hint="Name a file in a directory that is there, and where you may write.",
        )


def write(path: str, text: str) -> None:
    """Write a whole file in the place of another; raises OSError."""
    file = pathlib.Path(path)
    if _in_place(path):
        file.write_text(text, encoding="utf-8")
    else:
        plain_files.write(file, text, replace=True)


def _in_place(path: str) -> bool:
    """Tell what must stay what it is: a device such as /dev/null, a pipe, a link."""
    return os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path))
