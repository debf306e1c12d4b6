"""Nested stretches of time, and what each took without those inside it. Pure but for the clock."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class Spans:
    """Adds up, by name, the time of spans less the time of the spans inside them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.own: dict[str, float] = {}
        self._inside = threading.local()

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Count the block under a name; spans of another thread are not inside it."""
        before = getattr(self._inside, "seconds", 0.0)
        self._inside.seconds = 0.0
        began = self._clock()
        try:
            yield
        finally:
            took = self._clock() - began
            self.own[name] = self.own.get(name, 0.0) + took - self._inside.seconds
            self._inside.seconds = before + took
