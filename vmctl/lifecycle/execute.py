"""Carries out one machine's plan, step by step, under the machine's lock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from vmctl.deadline import Deadline
from vmctl.lifecycle import observe, removal, steps
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine import plan
from vmctl.machine.compare import Effect
from vmctl.machine.model import Machine
from vmctl.machine.observed import Observed
from vmctl.machine.plan import Action, MachinePlan
from vmctl.store import files, locks, records


@contextlib.contextmanager
def locked(site: Site, name: str) -> Iterator[Observed]:
    """Hold a machine's lock for the block, and look at the machine under it.

    Raises ConflictError at once when another vmctl works on the machine.
    """
    with locks.hold(site.layout.lock("machine", name), None, f"Machine '{name}'"):
        files.clear_temporaries(site.layout.machine(name).directory)
        yield observe.observe(site.connection, site.layout, name)


def bring_up(
    site: Site, machine: Machine, spec: tuple[str, bytes], worker: Worker, *, wait: bool = True
) -> None:
    """Do what is missing for a machine to run as its spec says, then wait until it is ready.

    `spec` is the file's path and text. The lock is held while things change, not while waiting.
    """
    with locked(site, machine.name) as observed:
        # What was seen before the lock may have changed since.
        todo = plan.plan_one(machine, observed)
        if not observed.state.active:
            steps.refuse_taken_ports(machine)
        _tell(todo, worker)
        _define(site, todo, _without_remains(site, todo, worker), spec, worker)
        running = _run(site, todo, worker)
    if wait:
        wait_until_ready(site, running, worker)


def _without_remains(site: Site, todo: MachinePlan, worker: Worker) -> Observed:
    """Finish a removal that was interrupted, and return what is there then."""
    if Action.FINISH_REMOVAL not in todo.actions:
        return todo.observed
    removal.remove(site, todo.observed, worker)
    return observe.observe(site.connection, site.layout, todo.machine.name)


def start_again(site: Site, observed: Observed, worker: Worker) -> Machine:
    """Start a machine as it is defined; the caller holds the lock. Returns what to wait for."""
    todo = plan.plan_start(observed)
    if not observed.state.active:
        steps.refuse_taken_ports(todo.machine)
    return _run(site, todo, worker)


def _tell(todo: MachinePlan, worker: Worker) -> None:
    for drift in todo.drift:
        worker.note("warning", f"changed by other hands, left as it is: {drift}")
    for change in todo.waiting:
        if todo.drift:
            worker.note("warning", f"{change} (not done: the domain was changed by other hands)")
        else:
            said = f"{change} (takes effect {change.effect})"
            worker.note("warning", said, _remedy(todo, worker))


def _remedy(todo: MachinePlan, worker: Worker) -> str:
    if any(change.effect is Effect.RE_CREATION for change in todo.waiting):
        return f"Make it anew: vmctl down {worker.name} && vmctl up"
    return f"Restart it when it suits you: vmctl restart {worker.name}"


def _define(
    site: Site, todo: MachinePlan, observed: Observed, spec: tuple[str, bytes], worker: Worker
) -> None:
    if Action.DEFINE not in todo.actions:
        return
    machine, (path, text) = todo.machine, spec
    place = site.layout.machine(machine.name)
    removal.clear_interrupted_creation(site, machine, observed)
    records.begin(
        place,
        "up",
        digest=machine.digest,
        keep=removal.kept(machine),
        networks=steps.network_names(machine),
    )
    if Action.NETWORK in todo.actions:
        with worker.step("network"), removal.nothing_left_if_refused(site, observed):
            steps.ensure_networks(site, machine)
    with worker.step("define"):
        steps.write_files(site, machine, text)
        steps.make_disks(machine, running=observed.state.active)
        uuid = observed.current.machine.uuid if observed.current else machine.uuid
        steps.define(site, machine, uuid=uuid, machine_type=_machine_type(machine, observed))
        steps.remember(site, machine, path, uuid, running=observed.state.active)
        records.finish(place)


def _machine_type(machine: Machine, observed: Observed) -> str:
    """Keep the versioned type, unless the spec now means another mainboard."""
    current = observed.current
    if current is None or current.machine.chipset is not machine.chipset:
        return ""
    return current.machine_type


def _run(site: Site, todo: MachinePlan, worker: Worker) -> Machine:
    machine = todo.machine
    if Action.DEFINE not in todo.actions and Action.NETWORK in todo.actions:
        with worker.step("network"):
            steps.ensure_networks(site, machine)
    if Action.START in todo.actions:
        with worker.step("start"):
            steps.start(site, machine)
    if Action.RESUME in todo.actions:
        with worker.step("resume"):
            steps.resume(site, machine.name)
    if Action.FORWARD in todo.actions:
        with worker.step("forward ports"):
            steps.forward(site, machine)
    return machine


def wait_until_ready(
    site: Site, machine: Machine, worker: Worker, deadline: Deadline | None = None
) -> None:
    """Wait until a running machine is ready; the deadline is the machine's own if none is given."""
    with worker.step("ready", patient=True) as progress:
        seen: Callable[[str], None] = progress
        steps.wait_until_ready(
            site,
            machine,
            deadline or Deadline.after(machine.ready.timeout),
            seen,
            lambda: worker.cancelled,
        )
