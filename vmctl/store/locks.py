"""Locks on things that vmctl owns: flock, so that a killed holder frees them at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from vmctl import errors, interruption
from vmctl.deadline import Deadline
from vmctl.store import files

_POLL = 0.05


@contextlib.contextmanager
def hold(path: pathlib.Path, deadline: Deadline | None, what: str) -> Iterator[None]:
    """Hold the lock file `path` for the length of the block.

    Without a deadline it does not wait. Raises ConflictError when another process holds it:
    `what` names the thing ("Machine 'web'"); InterruptError when nobody wants it any more.
    The descriptor is close-on-exec: a child that inherited it would keep the lock after this
    process died.
    """
    files.make_directory(path.parent)
    try:
        descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, files.PRIVATE
        )
    except OSError as problem:
        raise files.unusable(path, problem) from None
    try:
        while not _try(descriptor):
            if deadline is None or deadline.passed:
                raise errors.ConflictError(
                    f"{what} is being worked on by another vmctl (process {_holder(descriptor)}).",
                    hint="Wait until it has finished, then try again.",
                )
            interruption.stop_if_unwanted()
            deadline.pause(_POLL)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def held(path: pathlib.Path) -> bool:
    """Tell whether anybody holds the lock file `path` at this moment; changes nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
