"""What is there: a domain as libvirt and the store show it."""

from __future__ import annotations

import dataclasses

from vmctl.machine.state import State
from vmctl.machine.xml.domain import ReadBack


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One name, as found.

    `reason` says why the machine is in its state ("guest panicked"). `current` is None where there
    is no domain. `intent` is the verb of a command that was interrupted. `files` says that the
    store holds something for this name.
    """

    name: str
    state: State = State.ABSENT
    reason: str = ""
    current: ReadBack | None = None
    intent: str = ""
    files: bool = False

    @property
    def exists(self) -> bool:
        """True where libvirt has a domain of this name."""
        return self.current is not None
