"""Interleaved rounds: every contender once in each round, in an order drawn anew each time."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vmctl.lab import schedule

Sample = Mapping[str, float]
"""What one run gave, by metric: seconds, bytes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """Something that is measured. `run` prepares, measures and clears away."""

    name: str
    run: Callable[[], Sample]


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """One round: who ran when, and what each gave."""

    order: tuple[str, ...]
    samples: Mapping[str, Sample]


@dataclasses.dataclass(slots=True)
class Group:
    """Contenders that ran interleaved. Ratios are to `baseline`; `notes` say what each one is.

    `subject` is who is compared with each of the others, with a verdict.
    """

    title: str
    baseline: str
    metrics: tuple[str, ...]
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    rounds: list[Round] = dataclasses.field(default_factory=list)
    subject: str = ""

    @property
    def names(self) -> list[str]:
        """Everyone who ran in all rounds."""
        if not self.rounds:
            return []
        return [name for name in self.notes if all(name in each.samples for each in self.rounds)]

    def values(self, name: str, metric: str) -> list[float]:
        """Return a contender's samples in the order of the rounds."""
        return [each.samples[name][metric] for each in self.rounds]

    def has(self, name: str, metric: str) -> bool:
        """Tell whether a contender gave this metric in every round."""
        return all(metric in each.samples.get(name, {}) for each in self.rounds)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Group:
        """Read what `as_dict` gave."""
        return cls(
            title=data["title"],
            baseline=data["baseline"],
            metrics=tuple(data["metrics"]),
            notes=dict(data["notes"]),
            subject=data["subject"],
            rounds=[Round(tuple(each["order"]), each["samples"]) for each in data["rounds"]],
        )


def measure(
    group: Group,
    contenders: Sequence[Contender],
    count: int,
    chance: random.Random,
    told: Callable[[str], None],
) -> None:
    """Run `count` rounds after one that is thrown away (caches, compiled modules).

    The rounds are put into `group` one by one, so that an interruption keeps the whole ones.
    """
    for number, order in schedule.interleaved(contenders, count, chance):
        told(f"{group.title}: {f'round {number} of {count}' if number else 'warm-up'}")
        samples = {contender.name: dict(contender.run()) for contender in order}
        if number:
            group.rounds.append(Round(tuple(each.name for each in order), samples))
