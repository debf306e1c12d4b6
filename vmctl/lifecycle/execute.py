"""Carries out one machine's plan, step by step, under the machine's lock."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.hypervisor import networks
from vmctl.lifecycle import (
    directories,
    existing,
    observe,
    provision,
    removal,
    sharing,
    steps,
    waiting,
)
from vmctl.lifecycle.provision import Provision
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine import plan
from vmctl.machine.compare import Difference
from vmctl.machine.effects import Effect
from vmctl.machine.model import Disk, Machine, Nic
from vmctl.machine.observed import Observed
from vmctl.machine.plan import Action, MachinePlan
from vmctl.machine.state import State
from vmctl.store import files, locks, records


@contextlib.contextmanager
def locked(site: Site, name: str) -> Iterator[Observed]:
    """Hold a machine's lock for the block, and look at the machine under it.

    Raises ConflictError at once when another vmctl works on the machine.
    """
    with locks.hold(site.layout.lock("machine", name), None, f"Machine '{name}'"):
        files.clear_temporaries(site.layout.machine(name).directory)
        observed = observe.observe(site.connection, site.layout, name)
        if observed.intent.startswith("snapshot"):
            from vmctl.lifecycle import settle

            # What cannot be settled must not keep a machine from being removed.
            with contextlib.suppress(errors.VmctlError):
                observed = settle.settle(site, observed)
        yield observed


def bring_up(
    site: Site,
    machine: Machine,
    spec: tuple[str, bytes],
    worker: Worker,
    *,
    wait: bool = True,
    which: Provision = Provision.MISSING,
    take_over: bool = False,
) -> None:
    """Do what is missing for a machine to run as its spec says, then wait until it is ready.

    `spec` is the file's path and text, `which` says which provision steps are carried out,
    `take_over` that what other hands changed is overwritten. The lock is held while things change,
    not while waiting.
    """
    with locked(site, machine.name) as observed:
        # What was seen before the lock may have changed since.
        todo = plan.plan_one(machine, observed, take_over=take_over)
        if not observed.state.active:
            steps.refuse_taken_ports(machine)
            directories.require(machine, site.connection.uri)
        _tell(todo, worker)
        _keep_before(site, todo, worker)
        _define(site, todo, _without_remains(site, todo, worker), spec, worker)
        running = _run(site, todo, worker)
    if wait:
        wait_until_ready(site, running, worker)
        provision.carry_out(site, running, which, worker)
    elif running.mounts or running.provision:
        worker.note("info", "its mounts and provision steps come with the next vmctl up")


def _keep_before(site: Site, todo: MachinePlan, worker: Worker) -> None:
    """Take a snapshot of a machine that will be changed, where its spec wants that."""
    machine, observed = todo.machine, todo.observed
    changes = Action.DEFINE in todo.actions and observed.current is not None
    if not (changes and machine.snapshot_before_up) or observed.intent:
        return
    from vmctl.lifecycle import snapshots

    assert observed.current is not None
    if observed.state is State.SAVED or not (
        observed.state.active or observed.current.machine.disks
    ):
        worker.note("warning", "no snapshot was taken before the change: there is nothing to keep")
        return
    snapshots.take_by_itself(site, observed, snapshots.UP, machine.snapshots_kept, worker)


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
        directories.require(todo.machine, site.connection.uri)
    return _run(site, todo, worker)


def _tell(todo: MachinePlan, worker: Worker) -> None:
    for drift in todo.overwritten:
        worker.note("info", f"taken over from other hands: {drift}")
    for drift in todo.drift:
        hint = (
            "See all of it: vmctl diff; make it as the spec says: vmctl up --take-over "
            "(devices that were plugged in go with a restart)"
        )
        last = drift == todo.drift[-1]
        said = f"changed by other hands, left as it is: {drift}"
        worker.note("warning", said, hint if last else "")
    for change in todo.waiting:
        if todo.held:
            worker.note("warning", f"{change} (not done: the domain was changed by other hands)")
        else:
            said = f"{change} (takes effect {change.effect.phrase})"
            worker.note("warning", said, _remedy(change, worker))


def _remedy(change: Difference, worker: Worker) -> str:
    if change.effect is Effect.RE_CREATION:
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
        image_digest=steps.image_digest(machine),
    )
    with removal.nothing_left_if_refused(site, observed):
        steps.require_image(site, machine)
        existing.require(site.connection, machine)
    if Action.NETWORK in todo.actions:
        with worker.step("network"), removal.nothing_left_if_refused(site, observed):
            steps.ensure_networks(site, machine)
    if observed.state.active and any(each.grows for each in (*todo.live, *todo.waiting)):
        from vmctl.lifecycle import live_change

        live_change.grow_disks(site, machine, worker)
    with worker.step("define"):
        steps.write_files(site, machine, text)
        running = observed.state.active or observed.state is State.SAVED
        steps.make_disks(site, machine, running=running, in_use=_disks(observed))
        uuid = observed.current.machine.uuid if observed.current else machine.uuid
        steps.define(site, machine, uuid=uuid, machine_type=_machine_type(machine, observed))
        dropped = _dropped(machine, observed)
        running = observed.state.active
        kept = dropped.kept_disks
        steps.remember(site, machine, path, uuid, running=running, kept=kept)
        for nic in dropped.reserved:
            networks.release(site.connection, nic)
        records.finish(place)
    for disk in dropped.disks:
        worker.note(
            "info",
            f"disk '{disk.name}' is no longer in the spec; its file stays until the machine is "
            f"removed{' and after that' if disk.keep else ''}: {disk.file}",
        )


def _disks(observed: Observed) -> frozenset[str]:
    """Return the names of the disks that are in use, or that saved memory goes with."""
    machines = [observed.current.machine] if observed.current else []
    machines = [observed.running] if observed.running else machines
    return frozenset(disk.name for machine in machines for disk in machine.disks)


@dataclasses.dataclass(frozen=True, slots=True)
class _Dropped:
    """What the definition had and has no more."""

    disks: tuple[Disk, ...] = ()
    reserved: tuple[Nic, ...] = ()

    @property
    def kept_disks(self) -> tuple[str, ...]:
        return tuple(disk.name for disk in self.disks if disk.keep)


def _dropped(machine: Machine, observed: Observed) -> _Dropped:
    if observed.current is None:
        return _Dropped()
    before = observed.current.machine
    names = {disk.name for disk in machine.disks}
    addressed = {nic.mac for nic in machine.nics if nic.address}
    return _Dropped(
        disks=tuple(each for each in before.disks if each.name not in names and not each.external),
        reserved=tuple(nic for nic in before.nics if nic.address and nic.mac not in addressed),
    )


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
            steps.start(site, _defined(todo))
    if Action.RESUME in todo.actions:
        with worker.step("resume"):
            steps.resume(site, machine.name)
    if Action.CHANGE in todo.actions:
        from vmctl.lifecycle import live_change

        live_change.carry_out(site, machine, todo.spared, worker)
    if Action.FORWARD in todo.actions:
        with worker.step("forward ports"), waiting.ended_is_said(site, machine):
            steps.forward(site, machine)
    return machine


def _defined(todo: MachinePlan) -> Machine:
    """Return the machine that libvirt has now: the wanted one, or the one before where it waits."""
    current = todo.observed.current
    if current is None:
        return todo.machine
    if Action.DEFINE in todo.actions:
        # An existing domain keeps its UUID.
        return dataclasses.replace(todo.machine, uuid=current.machine.uuid)
    return current.machine


def wait_until_ready(
    site: Site, machine: Machine, worker: Worker, deadline: Deadline | None = None
) -> None:
    """Wait until a running machine is ready; the deadline is the machine's own if none is given."""
    with worker.step("ready", patient=True) as progress:
        seen: Callable[[str], None] = progress
        waiting.until_ready(
            site,
            machine,
            deadline or Deadline.after(machine.ready.timeout),
            seen,
            lambda: worker.cancelled,
        )
    sharing.mount_inside(site, machine, worker)
