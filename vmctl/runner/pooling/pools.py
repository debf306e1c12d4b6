"""What is done with pools from outside: made, looked at, resized, drained, deleted."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from vmctl import errors, interruption, process
from vmctl.deadline import Deadline
from vmctl.lifecycle import targets
from vmctl.lifecycle.events import Event, Note, Phase, Step
from vmctl.runner import background
from vmctl.runner.pooling import lease, pool, pool_client
from vmctl.runner.pooling.pool import Pool
from vmctl.store import home, locks
from vmctl.store.layout import Layout

_ANSWER_SECONDS = 30.0
_START_SECONDS = 60.0
_POLL = 0.2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A pool to make; `source` is a spec's path or an image's name."""

    name: str
    source: str
    uri: str
    slots: int
    refills: int
    memory_limit: int = 0
    allow_tcg: bool = False
    allow_outside: bool = False
    sets: tuple[str, ...] = ()
    idle: float = 0.0


def create(request: Request) -> Pool:
    """Keep a new pool, after all that can be refused was refused. Nothing is started."""
    from vmctl.runner.pooling import template

    pool.require_name(request.name)
    layout = Layout.default()
    home.opened(layout)
    own = not targets.is_file(request.source)
    place = layout.pool(request.name)
    made = Pool(
        name=request.name,
        spec=os.fspath(place.spec) if own else os.path.abspath(request.source),
        uri=request.uri,
        slots=request.slots,
        refills=request.refills,
        memory_limit=request.memory_limit,
        allow_tcg=request.allow_tcg,
        allow_outside=request.allow_outside,
        sets=request.sets,
        idle=request.idle,
    )
    pool.require_free(layout, made.name)
    _refuse_taken(layout, made)
    pool.create(layout, made, pool.spec_of_image(request.source) if own else None)
    try:
        machine = template.of(made, 1).machine
        template.require_room(made, machine, made.slots)
    except BaseException:
        pool.remove(layout, made.name)
        raise
    return made


def _refuse_taken(layout: Layout, made: Pool) -> None:
    for number in range(1, made.slots + 1):
        name = made.machine(number)
        if layout.machine(name).record.exists():
            raise errors.ConflictError(
                f"There is a machine '{name}' already, and the pool's would have that name.",
                hint=f"Choose another name for the pool, or remove it: vmctl down {name}",
            )


def start(name: str) -> None:
    """Start a pool's supervisor in the background; raises VmctlError where it does not come up."""
    # -P: a directory `vmctl` where the person happens to be is not this program.
    words = [sys.executable, "-P", "-m", "vmctl", "pool", "serve", "--background", name]
    done = process.run(
        [*background.bare(os.environ), *words], Deadline.after(_START_SECONDS), check=False
    )
    if done.status != 0:
        raise errors.VmctlError(
            f"The supervisor of pool '{name}' did not start.",
            hint=f"See why: vmctl pool serve {name}",
            details=done.complaint,
        )


def readied(name: str, deadline: Deadline) -> Iterator[Event]:
    """Yield what happens until all slots of a pool are ready.

    Raises HostError where none can be made, WaitTimeoutError.
    """
    layout = Layout.default()
    before: dict[str, tuple[str, str]] = {}
    began: dict[str, float] = {}
    while True:
        told = pool_client.ask(layout, name, Deadline.after(_ANSWER_SECONDS), ask="status")
        slots = told["slots"]
        for slot in slots:
            now = (str(slot["state"]), str(slot["problem"]))
            if before.get(slot["machine"]) != now:
                yield from _events(slot, began)
                before[slot["machine"]] = now
        states = {str(slot["state"]) for slot in slots}
        if states <= {"ready", "claimed", "left"}:
            return
        if states == {"failed"}:
            first = slots[0]
            raise errors.HostError(
                f"No machine of pool '{name}' can be made ready: {first['problem']}",
                hint=str(first["hint"]) or f"It is tried again: vmctl pool status {name}",
            )
        if deadline.passed:
            raise errors.WaitTimeoutError(
                f"Pool '{name}' was not ready within {deadline.seconds:g} s.",
                hint=f"Its supervisor goes on: vmctl pool status {name}",
            )
        deadline.pause(_POLL)


def _events(slot: dict[str, Any], began: dict[str, float]) -> Iterator[Event]:
    machine, state = str(slot["machine"]), str(slot["state"])
    if state == "working":
        began[machine] = time.monotonic()
        yield Step(machine=machine, step="slot", phase=Phase.STARTED)
    elif state == "ready":
        seconds = time.monotonic() - began.get(machine, time.monotonic())
        yield Step(machine=machine, step="slot", phase=Phase.DONE, seconds=seconds)
    elif state == "failed":
        yield Note(
            machine=machine, level="warning", text=str(slot["problem"]), hint=str(slot["hint"])
        )


def summaries(layout: Layout) -> list[dict[str, Any]]:
    """Return what is known of every pool of the store."""
    return [status(layout, each.name) for each in pool.every(layout)]


def status(layout: Layout, name: str) -> dict[str, Any]:
    """Return what is known of a pool: from its supervisor, else from the store alone."""
    found = pool.read(layout, name)
    told = pool_client.status(layout, name)
    if told is not None:
        return {key: value for key, value in told.items() if key != "ok"}
    return {
        "pool": dataclasses.asdict(found),
        "supervisor": None,
        "waiting": 0,
        "deleting": False,
        "counts": {},
        "slots": [
            {"slot": number, "machine": found.machine(number), "state": "unsupervised"}
            for number in range(1, found.slots + 1)
        ],
    }


def scale(layout: Layout, name: str, slots: int) -> None:
    """Give a pool another number of slots; jobs in slots that go are waited for."""
    from vmctl.runner.pooling import template

    pool.read(layout, name)
    with _unsupervised(layout, name) as alone:
        if alone:
            found = pool.read(layout, name)
            held = len(pool.leftover_slots(layout, found))
            if slots > min(found.slots, held):
                machine = template.of(found, 1).machine
                template.require_room(found, machine, slots, held=min(held, slots))
            pool.write(layout, dataclasses.replace(found, slots=slots))
            return
    pool_client.ask(layout, name, Deadline.after(_ANSWER_SECONDS), ask="scale", slots=slots)


def drain(layout: Layout, name: str, deadline: Deadline, *, resume: bool) -> None:
    """Have a pool hand out no machines and wait for the jobs that run; or let it go on."""
    pool.read(layout, name)
    late = errors.WaitTimeoutError(
        f"Jobs still run in pool '{name}' after {deadline.seconds:g} s; it hands out no more "
        "machines.",
        hint=f"See which: vmctl pool status {name}",
    )
    with _unsupervised(layout, name) as alone:
        if alone:
            found = pool.read(layout, name)
            pool.write(layout, dataclasses.replace(found, drained=not resume))
            if not resume:
                _wait_for_jobs(layout, found, deadline, late)
            return
    try:
        pool_client.ask(layout, name, deadline, ask="drain", drained=not resume)
    except errors.WaitTimeoutError:
        raise late from None


def delete(layout: Layout, name: str, deadline: Deadline, *, force: bool) -> list[str]:
    """Remove a pool with its machines, once the jobs have ended; `force` ends them.

    Returns which machines stay and why: those under a slot's name that are not the pool's.
    """
    pool.read(layout, name)
    begin = f"Jobs still run in pool '{name}' after {deadline.seconds:g} s; "
    hint = f"End them: vmctl pool delete --force {name}"
    with _unsupervised(layout, name) as alone:
        if alone:
            late = errors.WaitTimeoutError(
                f"{begin}nothing of it was removed, and it hands out no more machines.", hint=hint
            )
            return _delete_alone(layout, name, deadline, None if force else late)
    try:
        told = pool_client.ask(layout, name, deadline, ask="delete", force=force)
    except errors.WaitTimeoutError:
        late = errors.WaitTimeoutError(f"{begin}it goes when they have ended.", hint=hint)
        raise _not_removed(layout, name, deadline) or late from None
    return [str(each) for each in told.get("stay", ())]


def _not_removed(layout: Layout, name: str, deadline: Deadline) -> errors.WaitTimeoutError | None:
    """Return that machines are still being removed; None where jobs run in them."""
    slots = (pool_client.status(layout, name) or {}).get("slots", [])
    if any(each["state"] in ("claimed", "left") for each in slots):
        return None
    names = ", ".join(str(each["machine"]) for each in slots)
    why = next((f" {each['machine']}: {each['problem']}" for each in slots if each["problem"]), "")
    return errors.WaitTimeoutError(
        f"Machines of pool '{name}' were not removed within {deadline.seconds:g} s: "
        f"{names or 'the last ones'}.{why}",
        hint=f"Its supervisor goes on: vmctl pool status {name}",
    )


def _delete_alone(
    layout: Layout, name: str, deadline: Deadline, late: errors.WaitTimeoutError | None
) -> list[str]:
    """Remove a pool whose lock the caller holds; `late` is raised for jobs, None ends them."""
    from vmctl.runner.pooling.slot import Workshop

    found = dataclasses.replace(pool.read(layout, name), drained=True)
    pool.write(layout, found)
    leftover = pool.leftover_slots(layout, found)
    if late is not None:
        _wait_for_jobs(layout, found, deadline, late)
    for number in leftover:
        lease.revoke(layout.pool(name).lease(number))
    workshop = Workshop(layout, found, lambda _number, _step: None)
    stay = [workshop.remove(number) for number in leftover]
    pool.remove(layout, name)
    return [each for each in stay if each]


def _wait_for_jobs(
    layout: Layout, found: Pool, deadline: Deadline, late: errors.WaitTimeoutError
) -> None:
    """Wait for the jobs that a supervisor left, and have none begin; raises `late`.

    The caller holds the pool's lock: nobody gives a slot to another job meanwhile.
    """
    place = layout.pool(found.name)
    leases = [place.lease(number) for number in pool.leftover_slots(layout, found)]
    while not all(not lease.granted(each) or lease.clear(each) for each in leases):
        if deadline.passed:
            raise late
        interruption.stop_if_unwanted()
        deadline.pause(_POLL)


@contextlib.contextmanager
def _unsupervised(layout: Layout, name: str) -> Iterator[bool]:
    """Tell whether nobody supervises a pool, and keep it so for the block."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(
                locks.hold(layout.lock("pool", name), Deadline.after(0), f"Pool '{name}'")
            )
        except errors.ConflictError:
            yield False
            return
        yield True
