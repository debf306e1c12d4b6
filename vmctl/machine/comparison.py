"""How a machine of a spec differs from what is there, and what becomes of that. Pure."""

from __future__ import annotations

import dataclasses
import enum

from vmctl import errors
from vmctl.machine import change, plan
from vmctl.machine import compare as comparing
from vmctl.machine.compare import Difference
from vmctl.machine.effects import Effect
from vmctl.machine.model import Machine
from vmctl.machine.observed import Observed


class Verdict(enum.StrEnum):
    """What `up` would find."""

    SAME = "same"
    CREATE = "to create"
    CHANGED = "changed"
    REFUSED = "refused"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One machine: `changes` from what is there to what the spec says.

    `drift` is what other hands changed, `refusal` why `up` would not touch the machine, or not do
    what the spec says.
    """

    machine: Machine
    observed: Observed
    verdict: Verdict
    changes: tuple[Difference, ...] = ()
    drift: tuple[str, ...] = ()
    refusal: str = ""

    @property
    def differs(self) -> bool:
        """True where anything is not as the spec says."""
        return self.verdict is not Verdict.SAME

    def as_dict(self) -> dict[str, object]:
        """Return plain data, for JSON."""
        return {
            "machine": self.machine.name,
            "state": self.observed.state.value,
            "verdict": self.verdict.value,
            "changes": [each.as_dict() for each in self.changes],
            "drift": list(self.drift),
            "refusal": self.refusal,
            "interrupted": self.observed.intent,
        }


def compare(machine: Machine, observed: Observed) -> Comparison:
    """Return how a machine differs from the spec; nothing is refused here, but told."""
    if observed.current is None or observed.intent == "down":
        return Comparison(machine=machine, observed=observed, verdict=Verdict.CREATE)
    try:
        plan.refuse_foreign(machine, observed)
    except errors.VmctlError as problem:
        return Comparison(
            machine=machine, observed=observed, verdict=Verdict.REFUSED, refusal=problem.message
        )
    refusal = _refusal(machine, observed)
    changes, drift = _changes(machine, observed)
    verdict = Verdict.REFUSED if refusal else Verdict.CHANGED
    return Comparison(
        machine=machine,
        observed=observed,
        verdict=verdict if refusal or changes or drift else Verdict.SAME,
        changes=changes,
        drift=drift,
        refusal=refusal,
    )


def _refusal(machine: Machine, observed: Observed) -> str:
    try:
        plan.plan_one(machine, observed)
    except errors.VmctlError as problem:
        return problem.message
    return ""


def _changes(
    machine: Machine, observed: Observed
) -> tuple[tuple[Difference, ...], tuple[str, ...]]:
    judged = change.judge(machine, observed)
    if observed.live is not None:
        seen = {each.path: each for each in (*judged.live, *judged.waiting)}
        # What is only in the definition is done by defining it.
        rest = () if judged.held else judged.changes
        return (*seen.values(), *(each for each in rest if each.path not in seen)), judged.drift
    assert observed.current is not None
    there = (
        judged.waiting if judged.held else comparing.differences(observed.current.machine, machine)
    )
    new_image = any(each.field == "image" for each in there)
    return tuple(_when_stopped(each, new_image=new_image) for each in there), judged.drift


def _when_stopped(each: Difference, *, new_image: bool) -> Difference:
    late = Effect.RE_CREATION if new_image else Effect.NEXT_START
    return each if each.effect is Effect.RE_CREATION else dataclasses.replace(each, effect=late)
