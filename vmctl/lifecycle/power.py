"""Starts, stops, pauses and removes machines that exist."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from vmctl import errors
from vmctl.deadline import TCG_PATIENCE, Deadline
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor import domains
from vmctl.lifecycle import execute, observe, removal, schedule, steps
from vmctl.lifecycle.events import Event
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine import plan
from vmctl.machine.model import Accel, Machine
from vmctl.machine.observed import Observed
from vmctl.machine.state import State
from vmctl.store.layout import Layout

STOP_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Machines by name, and how to treat them.

    `timeout` in seconds, None for the usual; `missing_ok` takes absent machines as stopped.
    """

    names: Sequence[str]
    uri: str | None = None
    force: bool = False
    wait: bool = True
    timeout: float | None = None
    missing_ok: bool = False


Action = Callable[[Site, Observed, Worker, Request], None]


def start(request: Request) -> Iterator[Event]:
    """Start machines as they are defined, in the order of their needs."""
    return _each(request, _start)


def stop(request: Request) -> Iterator[Event]:
    """Stop machines: the power button, and the plug only with `force`."""
    return _each(request, _stop_locked, last_first=True, missing_ok=request.missing_ok)


def restart(request: Request) -> Iterator[Event]:
    """Stop and start machines."""
    return _each(request, _restart)


def pause(request: Request) -> Iterator[Event]:
    """Stop the guests' processors."""
    return _each(request, _pause)


def resume(request: Request) -> Iterator[Event]:
    """Let paused guests go on."""
    return _each(request, _resume)


def wait(request: Request) -> Iterator[Event]:
    """Wait until machines are ready."""
    return _each(request, _wait)


def existing(request: Request, *, missing_ok: bool) -> list[str]:
    """Return the names that there is something to remove of.

    Raises NotFoundError for one that there is nothing of, unless `missing_ok`, and ConflictError
    for a domain of others.
    """
    layout = Layout.default()
    with connections.opened(request.uri, layout) as connection:
        found = observe.observe_all(connection, layout, request.names)
    there = [name for name, seen in found.items() if seen.exists or seen.files]
    for name, seen in found.items():
        if name in there or not missing_ok:
            removal.refuse_foreign(seen)
    return there


def down(request: Request, *, with_kept: bool = False) -> Iterator[Event]:
    """Remove machines with all that was made for them; what is gone already is as it should be."""

    def work(site: Site, observed: Observed, worker: Worker, _request: Request) -> None:
        with execute.locked(site, observed.name) as current:
            removal.remove(site, current, worker, with_kept=with_kept)

    return _each(request, work, last_first=True, must_exist=False, missing_ok=True)


def _each(
    request: Request,
    action: Action,
    *,
    last_first: bool = False,
    must_exist: bool = True,
    missing_ok: bool = False,
) -> Iterator[Event]:
    """Do something with each machine; nothing is touched if one of them is refused."""
    layout = Layout.default()
    with connections.opened(request.uri, layout) as connection:
        site = Site(connection, layout)
        found = observe.observe_all(connection, layout, request.names)
        if missing_ok:
            found = {name: seen for name, seen in found.items() if seen.exists or seen.files}
        for observed in found.values():
            removal.refuse_foreign(observed)
            if must_exist and observed.current is None:
                raise _half_made(observed)

        def work(name: str, worker: Worker) -> None:
            action(site, found[name], worker, request)

        names = list(reversed(found)) if last_first else list(found)
        yield from schedule.carry_out(names, _needs(found, reverse=last_first), work)


def _half_made(observed: Observed) -> errors.NotFoundError:
    return errors.NotFoundError(
        f"Machine '{observed.name}' has files but no domain (interrupted: "
        f"{observed.intent or 'removed by other hands'}).",
        hint=f"Finish it with vmctl up SPEC, or clear it with vmctl down {observed.name}.",
    )


def _needs(found: dict[str, Observed], *, reverse: bool) -> dict[str, list[str]]:
    """Return who comes after whom: a machine starts after those it needs, and stops before."""
    needs: dict[str, list[str]] = {name: [] for name in found}
    for name, observed in found.items():
        for need in observed.current.machine.needs if observed.current else ():
            if need in found:
                needs[need if reverse else name].append(name if reverse else need)
    return needs


def _machine(observed: Observed) -> Machine:
    assert observed.current is not None
    return observed.current.machine


def _start(site: Site, observed: Observed, worker: Worker, request: Request) -> None:
    with execute.locked(site, observed.name) as current:
        machine = execute.start_again(site, current, worker)
    if request.wait:
        execute.wait_until_ready(site, machine, worker, _deadline(request))


def _restart(site: Site, observed: Observed, worker: Worker, request: Request) -> None:
    with execute.locked(site, observed.name) as current:
        _stop(site, current, worker, request)
        stopped = observe.observe(site.connection, site.layout, observed.name)
        machine = execute.start_again(site, stopped, worker)
    if request.wait:
        execute.wait_until_ready(site, machine, worker)


def _stop_locked(site: Site, observed: Observed, worker: Worker, request: Request) -> None:
    with execute.locked(site, observed.name) as current:
        _stop(site, current, worker, request)


def _stop(site: Site, observed: Observed, worker: Worker, request: Request) -> None:
    if observed.state is State.SAVED and request.force:
        from vmctl.hypervisor import snapshots

        with worker.step("drop saved memory"):
            snapshots.drop_saved(domains.get(site.connection, observed.name))
    if not observed.state.active:
        return
    domain = domains.get(site.connection, observed.name)
    if request.force:
        with worker.step("force off"):
            domains.force_off(domain)
        return
    if observed.state is State.PAUSED:
        domains.resume(domain)
    elif observed.state in (State.CRASHED, State.FAILED):
        raise errors.GuestError(
            f"Machine '{observed.name}' cannot be asked to stop: {observed.reason}.",
            hint=f"Pull the plug: vmctl stop --force {observed.name}",
        )
    machine = _machine(observed)
    patience = TCG_PATIENCE if machine.accel is Accel.TCG else 1
    deadline = _deadline(request) or Deadline.after(STOP_SECONDS * patience)
    with worker.step("stop"):
        if not domains.shut_down(domain, deadline, lambda: worker.cancelled):
            raise errors.WaitTimeoutError(
                f"Machine '{observed.name}' did not stop within {deadline.seconds:g} s: its guest "
                "does not follow the power button.",
                hint=f"Pull the plug: vmctl stop --force {observed.name}",
            )


def _pause(site: Site, observed: Observed, worker: Worker, _request: Request) -> None:
    with execute.locked(site, observed.name) as current:
        if current.state is State.PAUSED:
            return
        _require(current, State.RUNNING, "pause")
        with worker.step("pause"):
            domains.pause(domains.get(site.connection, observed.name))


def _resume(site: Site, observed: Observed, worker: Worker, _request: Request) -> None:
    with execute.locked(site, observed.name) as current:
        if current.state is State.RUNNING:
            return
        _require(current, State.PAUSED, "resume")
        plan.refuse_broken(current)
        with worker.step("resume"):
            steps.resume(site, observed.name)


def _wait(site: Site, observed: Observed, worker: Worker, request: Request) -> None:
    plan.refuse_broken(observed)
    _require(observed, State.RUNNING, "wait for")
    execute.wait_until_ready(site, _machine(observed), worker, _deadline(request))


def _require(observed: Observed, state: State, doing: str) -> None:
    if observed.state is not state:
        raise errors.ConflictError(
            f"Cannot {doing} machine '{observed.name}': it is {observed.state}.",
            hint=f"See its state: vmctl status {observed.name}",
        )


def _deadline(request: Request) -> Deadline | None:
    return Deadline.after(request.timeout) if request.timeout is not None else None
