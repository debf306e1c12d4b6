"""What has come of a file that is being downloaded: the beginning of it, and notes on the whole."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import pathlib
import re
import time
import urllib.parse
from collections.abc import Mapping

from vmctl import errors
from vmctl.images import cache
from vmctl.store import files, locks

_STALE_SECONDS = 14 * 86400.0


def directory() -> pathlib.Path:
    """Return where unfinished downloads lie. It may be removed at any time."""
    return cache.directory() / "downloads"


def make_directory() -> None:
    """Make that directory, for its owner alone. Raises HostError."""
    files.make_directory(cache.directory(), 0o755)
    files.make_directory(directory(), 0o700)


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """What has come of a file so far, and what the server said about the whole."""

    path: pathlib.Path

    @classmethod
    def of(cls, url: str) -> Part:
        """Return the place of what comes from an address."""
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
        readable = re.sub(r"[^A-Za-z0-9._-]", "_", name)[-80:]
        key = hashlib.sha256(url.encode()).hexdigest()[:32]
        return cls(directory() / f"{key}-{readable}.part")

    @property
    def notes(self) -> pathlib.Path:
        """The file of the notes."""
        return self.path.with_suffix(".json")

    @property
    def lock(self) -> pathlib.Path:
        """Held by the one process that fetches it; never removed."""
        return self.path.with_suffix(".lock")

    @property
    def size(self) -> int:
        """How much has come, in bytes."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def clear(self) -> None:
        """Forget what has come."""
        for path in (self.notes, self.path):
            path.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Notes:
    """What the server said when it began to send the whole; `total` in bytes, 0 for unknown."""

    final: str = ""
    etag: str = ""
    modified: str = ""
    total: int = 0

    @classmethod
    def read(cls, part: Part) -> Notes | None:
        """Return the notes, or None where there are none that can be understood."""
        data = files.read_json(part.notes)
        try:
            return cls(**data) if data is not None else None
        except TypeError:
            return None

    @classmethod
    def of(cls, final: str, headers: Mapping[str, str], total: int) -> Notes:
        """Return the notes on an answer that came from the address `final`."""
        etag = headers.get("ETag", "")
        return cls(
            final=final,
            # A weak one says that two files mean the same, not that their bytes are (RFC 9110).
            etag="" if etag.startswith("W/") else etag,
            modified=headers.get("Last-Modified", ""),
            total=total,
        )

    def validator(self, url: str) -> str:
        """Return what to ask by whether the file is unchanged, empty when that cannot be told.

        Mirrors of one file have the same times, and each its own tags.
        """
        same = urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(self.final).netloc
        return (self.etag if same else "") or self.modified


def clear_stale(own: Part) -> None:
    """Remove what was left long ago and nobody fetches now."""
    for path in own.path.parent.glob("*.part"):
        part = Part(path)
        with contextlib.suppress(OSError, errors.ConflictError):
            if path != own.path and time.time() - path.stat().st_mtime > _STALE_SECONDS:
                with locks.hold(part.lock, None, path.name):
                    part.clear()
