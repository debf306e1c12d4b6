"""What a change of the spec means for a machine that is there: done now, or waiting. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator

from vmctl.machine import compare, effects
from vmctl.machine.compare import Difference
from vmctl.machine.effects import Effect
from vmctl.machine.model import Machine
from vmctl.machine.observed import Observed

_DEVICE = re.compile(r"domain/devices/(disk|interface|filesystem|hostdev|redirdev|rng)( \(|$)")
"""Elements that other hands plug into a running machine."""

_DEFINED = "its definition; what the spec changed since cannot be told from that"
_RUNNING = "while it runs"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is wanted, and how that differs from what is there.

    `wanted` is what can be defined now: what needs a new machine is left as it was. `changes` are
    those of the definition, `live` what is changed in the running machine, `waiting` what is not.
    `drift` is what other hands changed; `held` says that the definition is left alone for that,
    `overwritten` what of it is not. `spared` are the places in the running machine that other
    hands changed.
    """

    wanted: Machine
    changes: tuple[Difference, ...]
    live: tuple[Difference, ...]
    waiting: tuple[Difference, ...]
    drift: tuple[str, ...]
    held: bool = False
    overwritten: tuple[str, ...] = ()
    spared: frozenset[str] = frozenset()

    @property
    def plugs(self) -> bool:
        """True where something is done to the running machine."""
        return bool(self.live) or any(each.grows for each in self.waiting)


def judge(machine: Machine, observed: Observed, *, take_over: bool = False) -> Judgement:
    """Compare a machine that is there with the spec's; `take_over` gives no heed to other hands."""
    current = observed.current
    assert current is not None
    changes = _for_new_image(compare.differences(current.machine, machine))
    edited = tuple(_edited(observed, machine, changes))
    held = bool(edited) and not take_over
    wanted = _definable(machine, current.machine, changes)
    if held:
        return _held(machine, observed, changes, edited)
    never = tuple(each for each in changes if each.effect is Effect.RE_CREATION)
    overwritten = edited if wanted is not current.machine else ()
    drift = () if overwritten else edited
    if observed.live is None:
        return Judgement(
            wanted=wanted,
            changes=changes,
            live=(),
            waiting=never,
            drift=drift,
            overwritten=overwritten,
        )
    running = observed.live.machine
    there = within(compare.differences(running, wanted), observed.live.spare_ports)
    foreign = (
        frozenset[str]() if take_over else _changed_by_hand(observed, current.machine, changes)
    )
    live = tuple(each for each in there if each.effect is Effect.NOW and each.path not in foreign)
    waiting = tuple(each for each in there if each.effect is not Effect.NOW)
    return Judgement(
        wanted=wanted,
        changes=changes,
        live=live,
        waiting=_unique((*never, *waiting)),
        drift=(*drift, *_live_drift(observed, current.machine, foreign)),
        overwritten=overwritten,
        spared=foreign,
    )


def _held(
    machine: Machine,
    observed: Observed,
    changes: tuple[Difference, ...],
    edited: tuple[str, ...],
) -> Judgement:
    """Return what is told of a machine whose definition is left alone."""
    current, live = observed.current, observed.live
    assert current is not None
    if current.digest != machine.digest:
        # Neither what the spec changed can be told, nor what was done to the running machine.
        drift = (*edited, *live_drift(observed))
        return Judgement(
            wanted=machine, changes=changes, live=(), waiting=changes, drift=drift, held=True
        )
    foreign = _changed_by_hand(observed, machine, ())
    there = compare.differences(live.machine, machine) if live is not None else ()
    drift = (*edited, *_live_drift(observed, machine, foreign))
    waiting = tuple(each for each in there if each.path not in foreign)
    return Judgement(wanted=machine, changes=(), live=(), waiting=waiting, drift=drift, held=True)


def _unique(differences: Iterable[Difference]) -> tuple[Difference, ...]:
    return tuple({each.path: each for each in differences}.values())


def _edited(observed: Observed, machine: Machine, changes: tuple[Difference, ...]) -> Iterator[str]:
    """Yield what other hands changed in the definition."""
    current = observed.current
    assert current is not None
    yield from unmanaged(observed)
    if current.digest == machine.digest:
        yield from (f"{each.path}: {each.after} -> {each.before or 'nothing'}" for each in changes)
    elif current.digest != current.machine.digest:
        yield _DEFINED


def unmanaged(observed: Observed) -> Iterator[str]:
    """Yield the elements of the definition that vmctl did not write, and those it misses."""
    if observed.current is not None:
        yield from (f"{path} is not managed by vmctl" for path in observed.current.unknown)
        yield from (f"{path} is gone or changed" for path in observed.current.missing)


def _definable(machine: Machine, current: Machine, changes: tuple[Difference, ...]) -> Machine:
    """Return the machine as it can be defined now: what needs a new one stays as it was."""
    never = {each.field for each in changes if each.effect is Effect.RE_CREATION}
    if never & {"image", "image files"}:
        return current
    held: dict[str, object] = {}
    if "firmware" in never:
        held |= {"firmware": current.firmware, "nvram": current.nvram}
    if never & set(effects.FIRST_BOOT):
        # The wishes lie in the store together, and cloud-init reads them once.
        fields = (*effects.FIRST_BOOT, "provision", "seed")
        held |= {field: getattr(current, field) for field in fields} | {"payload": None}
    return dataclasses.replace(machine, **held) if held else machine  # type: ignore[arg-type]


def _for_new_image(changes: tuple[Difference, ...]) -> tuple[Difference, ...]:
    """With another image everything else waits as well: its devices and disks depend on it."""
    if not any(each.field in ("image", "image files") for each in changes):
        return changes
    return tuple(dataclasses.replace(each, effect=Effect.RE_CREATION) for each in changes)


def within(differences: tuple[Difference, ...], ports: int) -> tuple[Difference, ...]:
    """Let those devices wait for the next start that no port is free for."""
    found = []
    plugs = [each for each in differences if _is_device(each)]
    ports += sum(1 for each in plugs if not each.after)
    for each in differences:
        if _is_device(each) and not each.before:
            ports -= 1
            if ports < 0:
                found.append(dataclasses.replace(each, effect=Effect.NEXT_START))
                continue
        found.append(each)
    return tuple(found)


def _is_device(each: Difference) -> bool:
    return each.effect is Effect.NOW and each.field in ("disks", "nics") and not each.part


def _changed_by_hand(
    observed: Observed, reference: Machine, changes: tuple[Difference, ...]
) -> frozenset[str]:
    """Return what in the running machine other hands changed, and the spec did not since.

    A running machine says up to which definition vmctl changed it. Where that is the present one,
    `reference`, everything that can be changed at once is as it should be, unless somebody changed
    it again.
    """
    live, current = observed.live, observed.current
    if live is None or current is None or live.applied != current.digest:
        return frozenset()
    there = compare.differences(live.machine, reference)
    now = {each.path for each in there if each.effect is Effect.NOW}
    return frozenset(now - {each.path for each in changes})


def live_drift(observed: Observed) -> tuple[str, ...]:
    """Return what other hands changed in the running machine."""
    current = observed.current
    if current is None:
        return ()
    intact = current.digest == current.machine.digest
    foreign = _changed_by_hand(observed, current.machine, ()) if intact else frozenset[str]()
    return tuple(_live_drift(observed, current.machine, foreign))


def pending(observed: Observed) -> tuple[Difference, ...]:
    """Return what is defined and does not run yet, but what other hands changed meanwhile."""
    current = observed.current
    if current is None or current.digest != current.machine.digest:
        return observed.pending
    foreign = _changed_by_hand(observed, current.machine, ())
    return tuple(each for each in observed.pending if each.path not in foreign)


def _live_drift(observed: Observed, reference: Machine, foreign: frozenset[str]) -> Iterator[str]:
    live, current = observed.live, observed.current
    if live is None or current is None:
        return
    # The other way round a medium would have another name.
    for each in compare.differences(live.machine, reference):
        if each.path in foreign:
            was, now = each.after or "nothing", each.before or "nothing"
            yield f"{_RUNNING}, {each.path}: {was} -> {now}"
    defined = set(current.unknown)
    for path in live.unknown:
        if _DEVICE.match(path) and path not in defined:
            yield f"{_RUNNING}, {path} is not managed by vmctl"
