"""What is there: a domain as libvirt and the store show it."""

from __future__ import annotations

import dataclasses

from vmctl.machine import compare
from vmctl.machine.compare import Difference
from vmctl.machine.model import Machine
from vmctl.machine.state import State
from vmctl.machine.xml.domain import ReadBack


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One name, as found.

    `reason` says why the machine is in its state ("guest panicked"). `current` is None where there
    is no domain, `live` is the domain as it runs, which may differ from how it is defined.
    `intent` is the verb of a command that was interrupted. `files` says that the
    store holds something for this name.
    """

    name: str
    state: State = State.ABSENT
    reason: str = ""
    current: ReadBack | None = None
    live: ReadBack | None = None
    intent: str = ""
    files: bool = False

    @property
    def running(self) -> Machine | None:
        """The machine as it runs."""
        return self.live.machine if self.live is not None else None

    @property
    def pending(self) -> tuple[Difference, ...]:
        """What is defined and does not run yet: it waits for the next start."""
        if self.running is None or self.current is None:
            return ()
        return compare.differences(self.running, self.current.machine)

    @property
    def exists(self) -> bool:
        """True where libvirt has a domain of this name."""
        return self.current is not None
