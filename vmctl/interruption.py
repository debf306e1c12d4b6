"""Whether anybody still wants what a thread is doing; Ctrl-C reaches only the main one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from vmctl import errors


class _Thread(threading.local):
    """What this thread was told to ask."""

    unwanted: Callable[[], bool] | None = None


_thread = _Thread()


@contextlib.contextmanager
def asked(unwanted: Callable[[], bool]) -> Iterator[None]:
    """Have `stop_if_unwanted` ask this function in this thread, for the length of the block."""
    before, _thread.unwanted = _thread.unwanted, unwanted
    try:
        yield
    finally:
        _thread.unwanted = before


def possible() -> bool:
    """Tell whether this thread has somebody to ask."""
    return _thread.unwanted is not None


def stop_if_unwanted() -> None:
    """Raise InterruptError once nobody wants any more what this thread does."""
    if _thread.unwanted is not None and _thread.unwanted():
        raise errors.InterruptError("Interrupted.")
