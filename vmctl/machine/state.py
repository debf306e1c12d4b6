"""Where a machine is in its life."""

from __future__ import annotations

import enum


class State(enum.StrEnum):
    """What libvirt and QEMU say of a machine."""

    ABSENT = "absent"
    STOPPED = "stopped"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    SAVED = "saved"
    CRASHED = "crashed"
    FAILED = "failed"

    @property
    def active(self) -> bool:
        """True while a QEMU process exists."""
        return self not in (State.ABSENT, State.STOPPED, State.SAVED)
