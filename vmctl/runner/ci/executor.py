"""Machines that a CI system holds from one of its calls to the next.

Each call is a process of its own, and any of them may be killed: what a later one needs lies in the
store, under the key by which the CI system knows the machine, before the machine itself is begun.
Machines have numbers that come again: libvirt keeps a log, and vmctl a lock, for each name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
import pathlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest.remote import Streams
from vmctl.guest.ssh import Access
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor import domains
from vmctl.lifecycle import access as accesses
from vmctl.lifecycle import power, up, workspace
from vmctl.lifecycle.events import Event
from vmctl.machine.model import Accel
from vmctl.runner.ci import keeper
from vmctl.runner.ci.offer import Choice, Sizes
from vmctl.runner.job import Job, carry_out
from vmctl.runner.watch import Watch
from vmctl.store import files, home, locks, records
from vmctl.store.layout import Layout

_LONGEST_KEY = 63
_HASH = 8
_BUSY_SECONDS = 60.0
"""How long a machine may still be worked on by a call that was just told to end."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A machine that a CI system wants.

    `key` is what it is found by again, `tag` what the CI system calls it: no secrets. `project`
    tells the machines of one CI system from all others, `stem` is how their names begin.
    """

    key: str
    stem: str
    project: str
    choice: Choice
    sizes: Sizes = dataclasses.field(default_factory=Sizes)
    tag: Mapping[str, str] = dataclasses.field(default_factory=dict)
    allow_tcg: bool = False
    uri: str | None = None

    def spec(self, name: str) -> str:
        """Return the text of the machine's spec."""
        lines = [f"name: {name}", f"project: {self.project}", *self.choice.lines(self.sizes)]
        return "\n".join(lines) + "\n"


def key(stem: str, *identity: str) -> str:
    """Return a key that begins with `stem`, told apart from all others by a hash of `identity`."""
    digest = hashlib.sha256("\0".join(identity).encode("utf-8", "surrogateescape")).hexdigest()
    label = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[: _LONGEST_KEY - _HASH - 1]
    return f"{label.strip('-') or 'm'}-{digest[:_HASH]}"


def make(order: Order, layout: Layout) -> Iterator[Event]:
    """Make a machine anew and wait until it is ready; what an earlier try left is removed first.

    Raises HostError where its guest would be emulated and the order does not allow that.
    """
    tag = {**order.tag, "project": order.project, "made": int(time.time())}
    with _alone(order.key, layout):
        yield from _remove(order.key, order.project, layout, order.uri)
        if not order.choice.pool:
            name = _allot(order, layout, tag)
            spec = place(layout, order.key).with_suffix(".yaml")
            try:
                files.write(spec, order.spec(name).encode())
                _require_one_fit(order, name, spec)
            except errors.VmctlError:
                _forget(order.key, layout)
                raise
            yield from up.run(up.Request(path=spec, uri=order.uri, allow_outside=True))
            return
    # Not under the lock: the process that keeps the machine is our child, and would inherit it.
    files.make_directory(layout.executors)
    keeper.take(order.choice.pool, place(layout, order.key), tag)


@contextlib.contextmanager
def _alone(key: str, layout: Layout) -> Iterator[None]:
    """Be the only one that makes or removes the machine of a key, for the length of the block.

    Keys never come again: the lock's file goes with the lock, and whoever waited for it sees by its
    process id, which its holder writes there, that it is another one by now. Raises ConflictError.
    """
    path = layout.lock("executors", key)
    limit = Deadline.after(_BUSY_SECONDS)
    while True:
        with locks.hold(path, limit, f"The machine of '{key}'"):
            if not _is_ours(path):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_ours(lock: pathlib.Path) -> bool:
    try:
        return lock.read_text(encoding="ascii") == f"{os.getpid()}\n"
    except (OSError, ValueError):
        return False


def place(layout: Layout, key: str) -> pathlib.Path:
    """Return where it is written down whose machine a key stands for."""
    return layout.executors / f"{key}.json"


def _allot(order: Order, layout: Layout, tag: dict[str, Any]) -> str:
    """Choose the first free number for a machine, and write down whose it will be."""
    beginning = f"{order.stem}-{home.opened(layout)[:6]}"
    files.make_directory(layout.executors)
    lock = layout.lock("executors", "names")
    with locks.hold(lock, Deadline.after(_BUSY_SECONDS), "The list of machines for CI systems"):
        taken = {found.get("machine") for found in _every(layout).values()}
        names = (f"{beginning}-{number}" for number in itertools.count(1))
        name = next(
            name
            for name in names
            if name not in taken and not layout.machine(name).directory.exists()
        )
        files.write_json(place(layout, order.key), {**tag, "machine": name})
    return name


def _every(layout: Layout) -> dict[str, dict[str, Any]]:
    found = ((path.stem, files.read_json(path)) for path in layout.executors.glob("*.json"))
    return {name: tag for name, tag in sorted(found, key=lambda item: item[0]) if tag is not None}


def _forget(key: str, layout: Layout) -> None:
    for suffix in (".yaml", ".log", ".json"):
        with contextlib.suppress(FileNotFoundError):
            place(layout, key).with_suffix(suffix).unlink()


def _require_one_fit(order: Order, name: str, spec: pathlib.Path) -> None:
    """Raise UsageError for a spec of several machines, HostError for an emulated guest."""
    space = workspace.open_spec(spec, uri=order.uri, allow_outside=True, create_store=True)
    if [machine.name for machine in space.machines] != [name]:
        names = ", ".join(machine.name for machine in space.machines)
        raise errors.UsageError(
            f"The spec '{order.choice.spec}' describes other machines than one for a job: {names}.",
            hint="A spec that jobs may ask for has one machine, without vms: and count:",
        )
    if space.machines[0].accel is Accel.TCG and not order.allow_tcg:
        why = space.machines[0].why.rstrip(".")
        raise errors.HostError(
            "Jobs would run in emulated guests (TCG), which is no security boundary"
            + (f": {why}." if why else "."),
            hint="Where every job is trusted, say so: --allow-tcg (GARM: allow_tcg = true)",
        )


def machine(key: str, layout: Layout) -> str:
    """Return the name of the machine that a key stands for; raises NotFoundError."""
    tag = files.read_json(place(layout, key))
    if tag is None or not tag.get("machine"):
        raise errors.NotFoundError(
            f"There is no machine for '{key}' (any more).",
            hint="See what there is: vmctl ps --all",
        )
    return str(tag["machine"])


def run(key: str, job: Job, streams: Streams, layout: Layout, uri: str | None) -> int:
    """Do a job in the machine that a key stands for, and return its command's status.

    Raises VmctlError where the machine failed, and GuestError at once when its guest panicked.
    """
    name = machine(key, layout)
    with contextlib.ExitStack() as stack:
        kept_way = kept(key, layout)
        if kept_way is not None:
            # Its pool pulls the plug, when it gets the machine back.
            record = records.read(layout.machine(name))
            uri = record.uri if record is not None else uri
        connection = stack.enter_context(connections.opened(uri, layout))
        domain = domains.get(connection, name)

        def pull() -> None:
            if kept_way is None:
                domains.force_off(domain)

        guard = Watch(
            name,
            layout.machine(name).console_log,
            lambda: domains.state(domain),
            pull,
            since=keeper.console_since(place(layout, key)),
        )
        access = kept_way or accesses.find(connection, layout, name)
        outcome = carry_out(access, job, streams, guard=guard)
    if outcome.failed and outcome.problem is not None:
        raise outcome.problem
    return outcome.status


def kept(key: str, layout: Layout) -> Access | None:
    """Return the way into a machine of a pool; None for one of its own.

    Raises GuestError where it was given back meanwhile.
    """
    return keeper.access(place(layout, key))


def remove(key: str, project: str, layout: Layout, *, uri: str | None = None) -> Iterator[Event]:
    """Remove a machine that was made for a CI system; fine where there is none any more.

    A machine of a pool is given back. Waits a while for a call that still works on it. Raises
    ConflictError for a machine of others.
    """
    if place(layout, key).exists():
        with _alone(key, layout):
            yield from _remove(key, project, layout, uri)


def _remove(key: str, project: str, layout: Layout, uri: str | None) -> Iterator[Event]:
    """Do what `remove` does; the caller holds the key."""
    tag = files.read_json(place(layout, key))
    if tag is None:
        return
    name = str(tag.get("machine", ""))
    if tag.get("project") != project:
        raise errors.ConflictError(
            f"'{key}' belongs to project '{tag.get('project')}', not to '{project}'.",
            hint=f"Look what it is: vmctl status {name}",
        )
    if tag.get("pool_name"):
        keeper.give_back(place(layout, key), Deadline.after(_BUSY_SECONDS))
    elif name:
        yield from _down(name, project, layout, uri)
    _forget(key, layout)


def _down(name: str, project: str, layout: Layout, uri: str | None) -> Iterator[Event]:
    record = records.read(layout.machine(name))
    if record is not None and record.project != project:
        # Its number was taken before our machine was begun.
        return
    limit = Deadline.after(_BUSY_SECONDS)
    while True:
        try:
            yield from power.down(power.Request(names=[name], uri=uri), with_kept=True)
            return
        except errors.ConflictError:
            if limit.passed or not locks.held(layout.lock("machine", name)):
                raise
            limit.pause(0.2)


def tags(layout: Layout, project: str) -> dict[str, dict[str, Any]]:
    """Return by key what is kept beside the machines of one CI system, half-made ones too."""
    return {name: tag for name, tag in _every(layout).items() if tag.get("project") == project}


def done(events: Iterator[Event]) -> None:
    """Carry out to the end what nobody watches."""
    for _event in events:
        pass


def words(script: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a small script of our own in a guest."""
    return ("sh", "-c", script, "vmctl", *arguments)
