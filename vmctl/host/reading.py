"""Reads small files of /proc, /sys and /etc; a file that is missing or forbidden reads as ''."""

from __future__ import annotations

import os
import pathlib

_LIMIT = 1 << 20
_RECORDS = 20_000


def text(path: pathlib.Path) -> str:
    """Return the text of a regular or pseudo file, '' where it cannot be read."""
    return raw(path).decode("utf-8", "replace")


def line(path: pathlib.Path) -> str:
    """Return the first line of a file without white space around it."""
    return text(path).partition("\n")[0].strip().rstrip("\0")


def raw(path: pathlib.Path) -> bytes:
    """Return the content of a file up to 1 MiB; never blocks, not on a FIFO either."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    try:
        with os.fdopen(descriptor, "rb") as stream:
            return stream.read(_LIMIT) or b""
    except OSError:
        return b""


def word(path: pathlib.Path, offset: int, size: int) -> bytes:
    """Return `size` bytes at `offset` of a file or device, b'' where that cannot be had."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = os.pread(descriptor, size, offset)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return data if len(data) == size else b""


def kernel_log(path: pathlib.Path) -> list[str]:
    """Return the messages in /dev/kmsg (one record a read); [] where that is not allowed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    records: list[str] = []
    try:
        for _ in range(_RECORDS):
            try:
                data = os.read(descriptor, 8192)
            except BrokenPipeError:  # overwritten while we read: the next read goes on after it
                continue
            if not data:
                break
            records.extend(data.decode("utf-8", "replace").splitlines())
    except OSError:  # BlockingIOError: the end
        pass
    finally:
        os.close(descriptor)
    return [record.rpartition(";")[2] if ";" in record else record for record in records]


def names(path: pathlib.Path) -> list[str]:
    """Return the sorted names in a directory, [] where it cannot be listed."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
