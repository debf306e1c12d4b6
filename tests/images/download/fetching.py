"""What the tests of downloads fetch, and how they do it and stop."""

from __future__ import annotations

import os

from tests.images.publisher import Publisher
from vmctl.images import download, partial

CONTENT = os.urandom(3 << 20)
PATH = "/images/disk.qcow2"
SLOW = 0.02
"""Seconds between two pieces of 64 KiB: 3 MiB take one second."""


def quiet(*_: object) -> None:
    """Follow no progress."""


def fetch(url: str, *, secure: bool = False, most: int = download.MOST) -> bytes:
    """Fetch a file and take it out of the cache."""
    with download.turn(url, quiet) as turn:
        fetched = turn.fetch(secure=secure, most=most)
        content = fetched.path.read_bytes()
        assert fetched.size == len(content)
        fetched.path.unlink()
        return content


def left() -> int:
    """Return how much of unfinished downloads is in the cache."""
    return sum(path.stat().st_size for path in partial.directory().glob("*.part"))


def stop_at(url: str, count: int, publisher: Publisher) -> None:
    """Begin a download and end it after so many bytes, as Ctrl-C does."""
    publisher.files[PATH].pace = SLOW

    def progress(_: str, done: int, __: int) -> None:
        if done >= count:
            raise RuntimeError("enough")

    with download.turn(url, progress) as turn:
        turn.fetch(secure=False)


SCRIPT = """
import sys
from vmctl.images import download
with download.turn(sys.argv[1], lambda *_: None) as turn:
    print(turn.fetch(secure=False).path, flush=True)
"""
