"""What a comparison found: every raw sample with its unit, and where it comes from.

The form of the file is described by `schema()`, in docs/lab.md for people.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from vmctl import errors
from vmctl.lab import schedule

FORMAT = "vmctl-compare/1"
_LARGEST_FILE = 64 << 20


class State(enum.StrEnum):
    """How far a comparison or a single run got."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    OK = "ok"
    VOID = "void"
    REFUSED = "refused"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measured value; `operations` is how many of them it is the mean of."""

    workload: str
    value: float
    unit: str
    operations: int = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One start of one contender, and all that it gave.

    `round` 0 is the warm-up, which no figure uses. A void run is kept with its reason (`why`) and
    used nowhere. `missing` says of single workloads why they gave nothing. `facts` is what the
    guest says of itself, `proof` what libvirt and QEMU say of it while it runs.
    """

    contender: str
    round: int
    place: int
    state: State
    why: str = ""
    began: str = ""
    load: float = 0.0
    samples: tuple[Sample, ...] = ()
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    proof: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """True for a run that figures are made from."""
        return self.state is State.OK and self.round != schedule.WARM_UP

    def value(self, workload: str) -> float | None:
        """Return the run's value in a workload: the median of its samples."""
        values = [sample.value for sample in self.samples if sample.workload == workload]
        return statistics.median(values) if values else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Something that was compared. `mode` is a mode of vmctl's, or container, or host.

    `isolation` says what keeps it apart, a line each. `xml` is the domain as it was started,
    `argv` QEMU's command line or the runtime's; both are those of its first run.
    """

    name: str
    mode: str
    state: State = State.OK
    why: str = ""
    hint: str = ""
    accel: str = ""
    devices: str = ""
    isolation: tuple[str, ...] = ()
    topology: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    xml: str = ""
    argv: tuple[str, ...] = ()


@dataclasses.dataclass(slots=True, kw_only=True)
class Results:
    """One comparison on one host."""

    began: str
    seed: int
    rounds: int
    slice_seconds: float
    baseline: str
    against_itself: bool = False
    state: State = State.COMPLETE
    why: str = ""
    seconds: float = 0.0
    vmctl: str = ""
    host: dict[str, Any] = dataclasses.field(default_factory=dict)
    machine: dict[str, Any] = dataclasses.field(default_factory=dict)
    probe: dict[str, Any] = dataclasses.field(default_factory=dict)
    workloads: tuple[str, ...] = ()
    contenders: list[Contender] = dataclasses.field(default_factory=list)
    runs: list[Run] = dataclasses.field(default_factory=list)

    def contender(self, name: str) -> Contender:
        """Return a contender by its name."""
        return next(each for each in self.contenders if each.name == name)

    @property
    def title(self) -> str:
        """The host's name and processor, for headings."""
        return " · ".join(str(self.host[key]) for key in ("name", "cpu") if self.host.get(key))

    def pairs(self, workload: str, ours: str, theirs: str) -> tuple[list[float], list[float]]:
        """Return the values of two contenders in the rounds that both came through."""
        first, second = self.values(workload, ours), self.values(workload, theirs)
        both = sorted(first.keys() & second.keys())
        return [first[number] for number in both], [second[number] for number in both]

    def values(self, workload: str, contender: str) -> dict[int, float]:
        """Return a contender's value in each round that counts."""
        found = {}
        for run in self.runs:
            value = run.value(workload) if run.counts and run.contender == contender else None
            if value is not None:
                found[run.round] = value
        return found

    def missing(self, workload: str, contender: str) -> str:
        """Return why a contender gave nothing in a workload."""
        own = [run for run in self.runs if run.contender == contender]
        reasons = [run.missing[workload] for run in own if workload in run.missing]
        reasons += [run.why for run in own if run.state is not State.OK]
        reasons += [each.why for each in self.contenders if each.name == contender and each.why]
        return reasons[0] if reasons else "not part of it"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    def text(self) -> str:
        """Return the file's content."""
        return json.dumps(self.as_dict(), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def load(path: str | os.PathLike[str]) -> Results:
    """Read a file that `compare --json` wrote. Raises NotFoundError, UsageError."""
    place = pathlib.Path(path)
    try:
        if place.stat().st_size > _LARGEST_FILE:
            raise errors.UsageError(f"The file '{place}' is too large for results of compare.")
        data = json.loads(place.read_bytes())
    except FileNotFoundError:
        raise errors.NotFoundError(
            f"There is no file '{place}'.", hint="Make one: vmctl compare --json FILE"
        ) from None
    except OSError as problem:
        raise errors.UsageError(f"The file '{place}' cannot be read: {problem.strerror}.") from None
    except (ValueError, RecursionError) as problem:
        raise errors.UsageError(f"The file '{place}' is no JSON: {problem}.") from None
    try:
        return from_dict(data)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise errors.UsageError(
            f"The file '{place}' does not hold results of compare: {_told(problem)}.",
            hint="Make one: vmctl compare --json FILE",
        ) from None


def _told(problem: Exception) -> str:
    return f"{problem} is missing" if isinstance(problem, KeyError) else str(problem)


def from_dict(data: Any) -> Results:
    """Return the results that `as_dict` made plain; raises ValueError and the like for others."""
    if not isinstance(data, dict):
        raise ValueError("the whole is no object")
    if data.get("format") != FORMAT:
        raise ValueError(f"its format is {data.get('format')!r}, this vmctl reads {FORMAT!r}")
    fields = {field.name for field in dataclasses.fields(Results)}
    known = {key: value for key, value in data.items() if key in fields}
    runs = [_run(each) for each in _list(data["runs"])]
    contenders = [_contender(each) for each in _list(data["contenders"])]
    known |= {
        "state": State(data["state"]),
        "workloads": tuple(str(each) for each in _list(data["workloads"])),
        "contenders": contenders,
        "runs": runs,
    }
    found = Results(**known)
    _check_numbers(found)
    strangers = {run.contender for run in runs} - {each.name for each in contenders}
    if strangers:
        raise ValueError(f"there are runs of an unknown contender, {min(strangers)!r}")
    return found


def _check_numbers(found: Results) -> None:
    """Raise ValueError for what a hand has changed into something else."""
    for name in ("seed", "rounds"):
        if not isinstance(getattr(found, name), int):
            raise ValueError(f"{name} is no whole number")
    for name in ("host", "machine", "probe"):
        if not isinstance(getattr(found, name), dict):
            raise ValueError(f"{name} is no object")
    for name in ("began", "baseline", "why", "vmctl"):
        if not isinstance(getattr(found, name), str):
            raise ValueError(f"{name} is no text")


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.40} is no list")
    return value


def _run(data: Any) -> Run:
    samples = tuple(_sample(each) for each in _list(data["samples"]))
    known = {**data, "state": State(data["state"]), "samples": samples}
    fields = {field.name for field in dataclasses.fields(Run)}
    return Run(**{key: value for key, value in known.items() if key in fields})


def _sample(data: Any) -> Sample:
    value = data["value"]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"a sample's value is {value!r:.40}")
    return Sample(
        workload=str(data["workload"]),
        value=float(value),
        unit=str(data["unit"]),
        operations=int(data.get("operations", 1)),
    )


def _contender(data: Any) -> Contender:
    known = {
        **data,
        "state": State(data["state"]),
        "isolation": tuple(str(each) for each in _list(data.get("isolation", []))),
        "argv": tuple(str(each) for each in _list(data.get("argv", []))),
    }
    fields = {field.name for field in dataclasses.fields(Contender)}
    return Contender(**{key: value for key, value in known.items() if key in fields})
