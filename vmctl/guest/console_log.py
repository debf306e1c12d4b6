"""The log of a machine's serial console: written by libvirt, read here."""

from __future__ import annotations

import os
import pathlib
import re

PANIC = re.compile(r"Kernel panic - not syncing: .*")
"""How Linux says on its console that it gave up."""

_LONGEST_TAIL = 1 << 20
"""Bytes of output that are searched at a time; libvirt itself rotates the log at 2 MiB."""


def size(path: pathlib.Path) -> int:
    """Return the length of a log in bytes, 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def last_lines(path: pathlib.Path, count: int, *, since: int = 0) -> str:
    """Return the last lines of a log, from the byte `since` on."""
    try:
        with path.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(min(since, end), end - _LONGEST_TAIL))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
    return "\n".join(lines[-count:]) if count else text


def panic(path: pathlib.Path, since: int) -> str:
    """Return the words of a panic that was logged from the byte `since` on, or nothing."""
    found = PANIC.search(last_lines(path, 0, since=since))
    return found[0].strip() if found else ""


class Follower:
    """Reads what is added to a log; survives its rotation and truncation."""

    def __init__(self, path: pathlib.Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset
        self._inode = 0

    def begin(self, *, since: int = 0, lines: int | None = None) -> bytes:
        """Return what is there from the byte `since` on, or only its last lines."""
        end = size(self._path)
        # A log that was rotated since is shorter than it was.
        self._offset = since if since <= end else 0
        found = b""
        while piece := self.read():
            found = (found + piece)[-_LONGEST_TAIL:] if lines is not None else found + piece
        if lines is None:
            return found
        kept = found.splitlines(keepends=True)
        return b"".join(kept[len(kept) - lines :] if lines < len(kept) else kept)

    def read(self) -> bytes:
        """Return what came since the last call."""
        try:
            with self._path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                rotated = self._inode and status.st_ino != self._inode
                left = self._rest_of_rotated() if rotated else b""
                if rotated or status.st_size < self._offset:
                    self._offset = 0
                self._inode = status.st_ino
                stream.seek(self._offset)
                added = stream.read(_LONGEST_TAIL)
        except OSError:
            return b""
        self._offset += len(added)
        return left + added

    def _rest_of_rotated(self) -> bytes:
        """Return what was not read of the log before libvirt gave it the ending .0."""
        try:
            with self._path.with_name(f"{self._path.name}.0").open("rb") as stream:
                if os.fstat(stream.fileno()).st_ino != self._inode:
                    return b""
                stream.seek(self._offset)
                return stream.read(2 * _LONGEST_TAIL)
        except OSError:
            return b""
