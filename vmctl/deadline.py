"""Points in time that are handed down, instead of numbers of seconds that add up."""

from __future__ import annotations

import dataclasses
import time

TCG_PATIENCE = 10
"""Factor on every guest deadline under TCG (tmt's NON_KVM_TIMEOUT_COEF has the same value)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock by which something must be over."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline that lies `seconds` from now."""
        return cls(time.monotonic() + seconds, seconds)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """True once the moment is over."""
        return time.monotonic() >= self.at

    def within(self, seconds: float) -> Deadline:
        """Return the earlier of this deadline and one `seconds` from now."""
        return min(self, Deadline.after(seconds), key=lambda deadline: deadline.at)

    def pause(self, seconds: float) -> None:
        """Sleep `seconds`, or until the deadline if that is sooner."""
        time.sleep(min(seconds, self.remaining))
