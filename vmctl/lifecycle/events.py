"""What happens while a plan is carried out; the terminal and `--json` both live on these."""

from __future__ import annotations

import dataclasses
import enum


class Phase(enum.StrEnum):
    """Where a step stands."""

    STARTED = "started"
    PROGRESS = "progress"
    DONE = "done"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One piece of work on one machine; `seconds` is how long it took (when it has ended).

    `machine` is empty for work on the whole project (a network, an image). `note` is a short
    text for people: what was last seen, why it failed. `done`/`total` count units of a long step.
    """

    machine: str
    step: str
    phase: Phase
    seconds: float = 0.0
    note: str = ""
    done: int = 0
    total: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something worth saying that is not a step: a fallback, drift, an orphan."""

    machine: str
    level: str
    text: str
    hint: str = ""


Event = Step | Note
