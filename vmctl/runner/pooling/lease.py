"""Who has a slot, told by a file: the lease's number in it, and a lock of the holder's on it.

The connection to the supervisor is the lease as long as both live. The lock outlives a supervisor
that was killed: the next one sees by it that a job still runs, and the kernel takes it from a
client that died. The file is empty only where no job has seen the guest.
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

_OVER = b"-"
"""In place of a lease's number: nobody has the slot any more, and its guest is not fresh."""


class LostError(Exception):
    """The slot was taken back before its lease could be held."""


def grant(path: pathlib.Path, lease: str) -> None:
    """Write down whom a slot is given to, before they hear of it; an empty lease: it is fresh."""
    descriptor = os.open(path, _FLAGS | os.O_CREAT, 0o600)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, lease.encode(), 0)
    finally:
        os.close(descriptor)


def granted(path: pathlib.Path) -> bool:
    """Tell whether a slot was given to anybody since its guest was fresh."""
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
        _end(descriptor)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def revoke(path: pathlib.Path) -> None:
    """Take a slot back whose holder has gone, or is to go."""
    # Where it cannot be written, it still says that the guest is not fresh.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, _FLAGS)
        try:
            _end(descriptor)
        finally:
            os.close(descriptor)


def _end(descriptor: int) -> None:
    """End a lease. An empty file stays so: its guest was given to nobody."""
    if os.fstat(descriptor).st_size:
        os.pwrite(descriptor, _OVER, 0)
        os.ftruncate(descriptor, len(_OVER))


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
