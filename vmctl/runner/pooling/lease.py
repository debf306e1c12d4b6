"""Who has a slot, told by a file: the lease's number in it, and a lock of the holder's on it.

The connection to the supervisor is the lease as long as both live. The lock outlives a supervisor
that was killed: the next one sees by it that a job still runs, and the kernel takes it from a
client that died.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from vmctl.deadline import Deadline

_POLL = 0.005
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST = 64


class LostError(Exception):
    """The slot was taken back before its lease could be held."""


def grant(path: pathlib.Path, lease: str) -> None:
    """Write down whom a slot is given to, before they hear of it."""
    descriptor = os.open(path, _FLAGS | os.O_CREAT, 0o600)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, lease.encode(), 0)
    finally:
        os.close(descriptor)


def granted(path: pathlib.Path) -> bool:
    """Tell whether a slot was given to anybody since it was cleared."""
    with contextlib.suppress(OSError):
        return path.stat().st_size > 0
    return False


def clear(path: pathlib.Path) -> bool:
    """Have nobody begin to hold a slot's lease; False where somebody holds it."""
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def revoke(path: pathlib.Path) -> None:
    """Take a slot back whose holder has gone, or is to go."""
    with contextlib.suppress(FileNotFoundError):
        os.truncate(path, 0)


@contextlib.contextmanager
def held(path: pathlib.Path, lease: str, deadline: Deadline) -> Iterator[None]:
    """Hold a lease for the length of the block. Raises LostError where it is another's by now."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        raise LostError from None
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline.passed:
                    raise LostError from None
                deadline.pause(_POLL)
        if os.pread(descriptor, _LONGEST, 0) != lease.encode():
            raise LostError
        yield
    finally:
        os.close(descriptor)
