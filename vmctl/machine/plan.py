"""What is to be done: the difference between what is wanted and what is there. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping

from vmctl import errors, sizes
from vmctl.machine import compare
from vmctl.machine.compare import Difference, Effect
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
    FORWARD = "forward ports"
    WAIT = "wait until ready"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MachinePlan:
    """What `up` does for one machine.

    `waiting` are changes of the spec that do not take hold now, `drift` what was changed by
    other hands since; neither is touched.
    """

    machine: Machine
    observed: Observed
    actions: tuple[Action, ...]
    waiting: tuple[Difference, ...] = ()
    drift: tuple[str, ...] = ()

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
            "waiting": [
                {"change": str(difference), "effect": difference.effect.value}
                for difference in self.waiting
            ],
            "drift": list(self.drift),
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `up` does for a spec; machines in the spec's order.

    `orphans` are machines of the project that the spec no longer names.
    """

    machines: tuple[MachinePlan, ...]
    orphans: tuple[str, ...] = ()


def plan(
    machines: Iterable[Machine], observed: Mapping[str, Observed], orphans: Iterable[str] = ()
) -> Plan:
    """Return the plan for all machines; raises before anything is touched if one is refused."""
    return Plan(
        machines=tuple(plan_one(machine, observed[machine.name]) for machine in machines),
        orphans=tuple(orphans),
    )


def plan_one(machine: Machine, observed: Observed) -> MachinePlan:
    """Return the plan for one machine; raises ConflictError or GuestError where it is refused."""
    if observed.current is None or observed.intent == "down":
        first = (Action.FINISH_REMOVAL,) if observed.intent == "down" else ()
        return MachinePlan(
            machine=machine, observed=observed, actions=(*first, *_creation(machine))
        )
    refuse_foreign(machine, observed)
    refuse_broken(observed)
    drift = drifted(observed)
    changes = compare.differences(observed.current.machine, machine)
    same_spec = observed.current.digest == machine.digest
    if same_spec and observed.intent == "up" and not drift and not changes:
        # Killed between the definition and its record: what is there is written once more.
        return MachinePlan(
            machine=machine, observed=observed, actions=_definition(machine, observed.state)
        )
    if same_spec or drift:
        # Other hands changed the domain: that is shown, and not overwritten.
        waiting = observed.pending if same_spec else changes
        shown = drift or tuple(str(change) for change in changes)
        return MachinePlan(
            machine=machine,
            observed=observed,
            actions=_run(machine, observed.state),
            waiting=waiting,
            drift=shown,
        )
    return _changed(machine, observed, changes)


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


def _changed(machine: Machine, observed: Observed, changes: tuple[Difference, ...]) -> MachinePlan:
    """Plan for a machine whose spec changed: never a restart, never a re-creation."""
    recreation = tuple(change for change in changes if change.effect is Effect.RE_CREATION)
    if recreation:
        return MachinePlan(
            machine=machine,
            observed=observed,
            actions=_run(machine, observed.state),
            waiting=changes,
        )
    refuse_shrinking(observed, machine)
    if observed.state.active:
        late = tuple(change for change in changes if change.effect is not Effect.NOW)
        return MachinePlan(
            machine=machine,
            observed=observed,
            actions=_definition(machine, observed.state),
            waiting=late,
        )
    return MachinePlan(machine=machine, observed=observed, actions=_creation(machine))


def _definition(machine: Machine, state: State) -> tuple[Action, ...]:
    return (
        *_network(machine),
        Action.FILES,
        *((Action.DISKS,) if machine.disks else ()),
        Action.DEFINE,
        *(action for action in _run(machine, state) if action is not Action.NETWORK),
    )


def drifted(observed: Observed) -> tuple[str, ...]:
    """Return what other hands changed in a domain since vmctl wrote it."""
    current = observed.current
    if current is None:
        return ()
    found = [f"{path} is not managed by vmctl" for path in current.unknown]
    found += [f"{path} is gone or changed" for path in current.missing]
    return tuple(found)


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
        if before and disk.size > before:
            raise errors.UsageError(
                f"Disk '{disk.name}' of machine '{machine.name}' has {sizes.text(before)} and "
                f"the spec says {sizes.text(disk.size)}; growing a disk is not supported yet.",
                hint=f"Write size: {sizes.text(before)}, or make the machine anew.",
            )
