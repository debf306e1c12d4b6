"""Where the time of a run went: its stages in their order, each with its seconds."""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Callable, Iterator


class Stage(enum.StrEnum):
    """A stretch of a run; they follow one another in this order."""

    IMAGE = "image"
    OVERLAY = "overlay"
    START = "start"
    BOOT = "boot"
    READY = "ready"
    CLAIM = "claim"
    COPY_IN = "copy-in"
    COMMAND = "command"
    COPY_OUT = "copy-out"
    TEARDOWN = "teardown"

    @property
    def meaning(self) -> str:
        """What is counted, in a few words."""
        return _MEANINGS[self]


_MEANINGS = {
    Stage.IMAGE: "spec read, host asked, image found or made",
    Stage.OVERLAY: "files, keys and disks of the machine",
    Stage.START: "libvirt starts QEMU",
    Stage.BOOT: "the guest, until it is what its spec calls ready",
    Stage.READY: "login, mounts, provision steps, check of /dev/kvm",
    Stage.CLAIM: "a machine of the pool, waited for where all were taken",
    Stage.COPY_IN: "files copied into the guest",
    Stage.COMMAND: "the command",
    Stage.COPY_OUT: "files copied out of the guest",
    Stage.TEARDOWN: "plug pulled, files removed",
}


class Timings:
    """A clock that is told which stage begins and ends; made when the run begins.

    `first_output` is how many seconds after that the command's first byte came, None for none.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self.seconds: dict[Stage, float] = {}
        self.first_output: float | None = None

    @contextlib.contextmanager
    def stage(self, which: Stage) -> Iterator[None]:
        """Count the block as part of a stage."""
        began = self._clock()
        try:
            yield
        finally:
            self.seconds[which] = self.seconds.get(which, 0.0) + self._clock() - began

    def note_output(self) -> None:
        """Remember when the command's first byte came."""
        if self.first_output is None:
            self.first_output = self._clock() - self._began

    @property
    def total(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._began

    def as_dict(self) -> dict[str, float]:
        """Return the stages that there were and the total, in seconds, for JSON."""
        known = {
            stage.value: round(self.seconds[stage], 3) for stage in Stage if stage in self.seconds
        }
        return {**known, "total": round(self.total, 3)}
