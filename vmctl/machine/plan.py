"""What is to be done: the difference between what is wanted and what is there. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping

from vmctl import errors, sizes
from vmctl.machine import change
from vmctl.machine.change import Judgement
from vmctl.machine.compare import Difference
from vmctl.machine.model import Machine, NicKind
from vmctl.machine.observed import Observed
from vmctl.machine.state import State


class Action(enum.StrEnum):
    """One step on one machine, in the order in which they come."""

    FINISH_REMOVAL = "finish removal"
    BUILD_IMAGE = "build image"
    NETWORK = "network"
    FILES = "files"
    DISKS = "disks"
    DEFINE = "define"
    START = "start"
    RESUME = "resume"
    CHANGE = "change what runs"
    FORWARD = "forward ports"
    WAIT = "wait until ready"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MachinePlan:
    """What `up` does for one machine.

    `machine` is as it can be defined now. `live` are changes of the running machine, `waiting`
    those of the spec that do not take hold now, `drift` what was changed by other hands since;
    neither of these is touched. `overwritten` is what other hands changed and `up` was told to
    take over; `spared` are the places in the running machine that are left as they are, `held`
    says that the whole definition is.
    """

    machine: Machine
    observed: Observed
    actions: tuple[Action, ...]
    live: tuple[Difference, ...] = ()
    waiting: tuple[Difference, ...] = ()
    drift: tuple[str, ...] = ()
    overwritten: tuple[str, ...] = ()
    spared: frozenset[str] = frozenset()
    held: bool = False

    @property
    def changes(self) -> tuple[Action, ...]:
        """The actions that change something; to look again is none."""
        return tuple(
            action for action in self.actions if action not in (Action.FORWARD, Action.WAIT)
        )

    def as_dict(self) -> dict[str, object]:
        """Return plain data, for JSON."""
        return {
            "machine": self.machine.name,
            "mode": self.machine.mode.value,
            "why": self.machine.why,
            "state": self.observed.state.value,
            "actions": [action.value for action in self.actions],
            "live": [str(difference) for difference in self.live],
            "waiting": [
                {"change": str(difference), "effect": difference.effect.value}
                for difference in self.waiting
            ],
            "drift": list(self.drift),
            "overwritten": list(self.overwritten),
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `up` does for a spec; machines in the spec's order.

    `orphans` are machines of the project that the spec no longer names.
    """

    machines: tuple[MachinePlan, ...]
    orphans: tuple[str, ...] = ()


def plan(
    machines: Iterable[Machine],
    observed: Mapping[str, Observed],
    orphans: Iterable[str] = (),
    *,
    take_over: bool = False,
) -> Plan:
    """Return the plan for all machines; raises before anything is touched if one is refused."""
    return Plan(
        machines=tuple(
            plan_one(machine, observed[machine.name], take_over=take_over) for machine in machines
        ),
        orphans=tuple(orphans),
    )


def plan_one(machine: Machine, observed: Observed, *, take_over: bool = False) -> MachinePlan:
    """Return the plan for one machine; raises ConflictError or GuestError where it is refused.

    What other hands changed is left as it is, unless `take_over` says otherwise.
    """
    if observed.current is None or observed.intent == "down":
        first = (Action.FINISH_REMOVAL,) if observed.intent == "down" else ()
        return MachinePlan(
            machine=machine, observed=observed, actions=(*first, *_creation(machine))
        )
    refuse_foreign(machine, observed)
    refuse_broken(observed)
    judged = change.judge(machine, observed, take_over=take_over)
    if not judged.held:
        refuse_shrinking(observed, judged.wanted)
    return MachinePlan(
        machine=judged.wanted,
        observed=observed,
        actions=_of_existing(judged, observed),
        live=judged.live,
        waiting=judged.waiting,
        drift=judged.drift,
        overwritten=judged.overwritten,
        spared=judged.spared,
        held=judged.held,
    )


def _of_existing(judged: Judgement, observed: Observed) -> tuple[Action, ...]:
    """Return what is done with a machine that is there: never a restart, never a re-creation."""
    assert observed.current is not None
    wanted, state = judged.wanted, observed.state
    current = observed.current.machine
    run = _run(current if judged.held else wanted, state)
    if judged.held or wanted is current:
        return run
    # Killed between the definition and its record: what is there is written once more.
    defined = observed.current.digest == wanted.digest and observed.intent != "up"
    if defined and not judged.overwritten:
        return _with_change(run) if judged.plugs else run
    if state.active or state is State.SAVED:
        # What was saved goes on as it was, and is changed then.
        return _with_change(_definition(wanted, run))
    return _definition(wanted, run)


def _with_change(actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """Put the changes of what runs before what is done with a machine that runs as it should."""
    first = next(
        index for index, each in enumerate(actions) if each in (Action.FORWARD, Action.WAIT)
    )
    forward = () if Action.FORWARD in actions else (Action.FORWARD,)
    return (*actions[:first], Action.CHANGE, *forward, *actions[first:])


def _creation(machine: Machine) -> tuple[Action, ...]:
    build = (Action.BUILD_IMAGE,) if machine.image and not machine.image.present else ()
    return (
        *build,
        *_network(machine),
        Action.FILES,
        *((Action.DISKS,) if machine.disks else ()),
        Action.DEFINE,
        Action.START,
        *_afterwards(machine),
    )


def _network(machine: Machine) -> tuple[Action, ...]:
    own = any(nic.kind in (NicKind.NAT, NicKind.ISOLATED) for nic in machine.nics)
    return (Action.NETWORK,) if own else ()


def _afterwards(machine: Machine) -> tuple[Action, ...]:
    user = any(nic.kind is NicKind.USER for nic in machine.nics)
    ports = machine.forwards or (machine.user and user)
    return (*((Action.FORWARD,) if ports else ()), Action.WAIT)


def _run(machine: Machine, state: State) -> tuple[Action, ...]:
    if state is State.PAUSED:
        return (Action.RESUME, *_afterwards(machine))
    if state is State.RUNNING:
        return _afterwards(machine)
    return (*_network(machine), Action.START, *_afterwards(machine))


def plan_start(observed: Observed) -> MachinePlan:
    """Return the plan that starts a machine as it is defined."""
    assert observed.current is not None
    refuse_broken(observed)
    machine = observed.current.machine
    return MachinePlan(machine=machine, observed=observed, actions=_run(machine, observed.state))


def _definition(machine: Machine, run: tuple[Action, ...]) -> tuple[Action, ...]:
    return (
        *_network(machine),
        Action.FILES,
        *((Action.DISKS,) if machine.disks else ()),
        Action.DEFINE,
        *(action for action in run if action is not Action.NETWORK),
    )


def drifted(observed: Observed) -> tuple[str, ...]:
    """Return what other hands changed in a domain since vmctl wrote it."""
    return tuple(change.unmanaged(observed)) + change.live_drift(observed)


def refuse_foreign(machine: Machine, observed: Observed) -> None:
    """Raise ConflictError for a domain that is not this project's own."""
    current = observed.current
    assert current is not None
    if not current.owned:
        raise errors.ConflictError(
            f"A domain '{observed.name}' exists that vmctl did not make; it is left alone.",
            hint="Choose another name in the spec.",
        )
    if current.machine.project != machine.project:
        raise errors.ConflictError(
            f"Machine '{observed.name}' belongs to project '{current.machine.project}', "
            f"not to '{machine.project}'.",
            hint="Choose another name in the spec, or set project: in it.",
        )
    if current.machine.console_log != machine.console_log:
        raise errors.ConflictError(
            f"The files of machine '{observed.name}' lie in another store "
            f"('{current.machine.console_log}').",
            hint="Point VMCTL_HOME to that store, or choose another name in the spec.",
        )


def refuse_broken(observed: Observed) -> None:
    """Raise GuestError for a guest that panicked or that KVM gave up on.

    Raises ConflictError for one of which only half has gone back to a snapshot.
    """
    if observed.intent == "restore":
        raise errors.ConflictError(
            f"Machine '{observed.name}' has gone back to a snapshot by half: 'restore' was "
            "interrupted.",
            hint=f"Run it again; see which: vmctl snapshot list {observed.name}",
        )
    if observed.state in (State.CRASHED, State.FAILED):
        raise errors.GuestError(
            f"Machine '{observed.name}' is not running any more: {observed.reason}.",
            hint=f"Look at it with: vmctl logs {observed.name}; "
            f"start it again with: vmctl restart --force {observed.name}",
        )


def refuse_shrinking(observed: Observed, machine: Machine) -> None:
    """Raise UsageError where a disk would become smaller."""
    assert observed.current is not None
    present = {disk.name: disk.size for disk in observed.current.machine.disks}
    for disk in machine.disks:
        before = present.get(disk.name, 0)
        if disk.size < before:
            raise errors.UsageError(
                f"Disk '{disk.name}' of machine '{machine.name}' has {sizes.text(before)} and "
                f"the spec says {sizes.text(disk.size)}; a disk never shrinks.",
                hint=f"Write size: {sizes.text(before)}, or make the machine anew.",
            )
