"""Copies between this host and machines, told step by step."""

from __future__ import annotations

import dataclasses
import pathlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from vmctl import errors
from vmctl.guest import copy
from vmctl.guest.landing import Summary
from vmctl.guest.session import Stop
from vmctl.guest.ssh import Access
from vmctl.hypervisor import connection as connections
from vmctl.lifecycle import access as accesses
from vmctl.lifecycle.events import Event, Note, Phase, Step
from vmctl.store.layout import Layout

_MOST_NAMED = 5
_END_SECONDS = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A path on this host, or, where `machine` is not empty, in a machine."""

    machine: str
    path: str

    @classmethod
    def read(cls, word: str) -> Place:
        """Read PATH or NAME:PATH; what has a slash ahead of its colon is a path of this host."""
        name, colon, path = word.partition(":")
        if colon and name and "/" not in name:
            return cls(name, path)
        return cls("", word)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is copied where; `user` is who reads and writes in the machine, empty for its login."""

    sources: tuple[Place, ...]
    target: Place
    uri: str | None = None
    user: str = ""


def run(request: Request) -> Iterator[Event]:
    """Copy, and yield what happens. Raises UsageError where not one side is a machine."""
    machine = _machine(request)
    layout = Layout.default()
    with connections.opened(request.uri, layout) as connection:
        access = accesses.find(connection, layout, machine)
    if request.target.machine:
        yield from _told(access, request, f"copy to {request.target.path or '~'}", _send(request))
        return
    target = pathlib.Path(request.target.path)
    if len(request.sources) > 1 and not target.is_dir():
        raise errors.NotFoundError(f"There is no directory '{target}' to copy several files into.")
    for source in request.sources:
        yield from _told(access, request, f"copy {source.path or '~'}", _fetch(source, target))


Work = Callable[[copy.Way], Summary]


def _send(request: Request) -> Work:
    sources = [pathlib.Path(each.path) for each in request.sources]
    return lambda way: copy.to_guest(way, sources, request.target.path)


def _fetch(source: Place, target: pathlib.Path) -> Work:
    return lambda way: copy.from_guest(way, source.path, target)


def _machine(request: Request) -> str:
    """Return the one machine that takes part."""
    named = {each.machine for each in (*request.sources, request.target)}
    if len(named) == 2 and "" in named and len({each.machine for each in request.sources}) == 1:
        return next(name for name in named if name)
    if named == {""}:
        raise errors.UsageError(
            "Neither side of the copy is in a machine.",
            hint="A machine's file is NAME:PATH: vmctl cp ./file web:/tmp/",
        )
    raise errors.UsageError(
        "A copy goes between this host and one machine.",
        hint="From one machine to another, copy to the host first; a file of the host with a "
        "colon in its name is ./NAME:PATH.",
    )


def _told(access: Access, request: Request, what: str, work: Work) -> Iterator[Event]:
    """Do `work` in a thread, and yield how far it is; closing the iterator ends it."""
    machine, stop = access.name, Stop()
    events: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
    result: list[Summary | BaseException] = []

    def told(done: int, total: int) -> None:
        events.put((done, total))

    def attend() -> None:
        try:
            way = copy.Way(access=access, told=told, stop=stop, user=request.user)
            result.append(work(way))
        except BaseException as problem:  # noqa: BLE001  (raised again by the caller's thread)
            result.append(problem)
        events.put(None)

    begun = time.monotonic()
    thread = threading.Thread(target=attend, name=f"vmctl-copy-{machine}", daemon=True)
    yield Step(machine=machine, step=what, phase=Phase.STARTED)
    thread.start()
    try:
        while (progress := events.get()) is not None:
            done, total = progress
            yield Step(
                machine=machine,
                step=what,
                phase=Phase.PROGRESS,
                note=f"{done / (1 << 20):.1f} MiB",
                done=done,
                total=total,
            )
    finally:
        # What has landed so far is removed by the thread, on its way out.
        if thread.is_alive():
            stop.now()
        thread.join(_END_SECONDS)
    seconds = time.monotonic() - begun
    ended = result[0]
    if isinstance(ended, BaseException):
        yield Step(machine=machine, step=what, phase=Phase.FAILED, seconds=seconds)
        raise ended
    note = f"{ended.files} {'file' if ended.files == 1 else 'files'}, {_size(ended.size)}"
    yield Step(machine=machine, step=what, phase=Phase.DONE, seconds=seconds, note=note)
    yield from _left_out(machine, ended.left_out)


def _left_out(machine: str, what: Sequence[str]) -> Iterator[Event]:
    for each in what[:_MOST_NAMED]:
        yield Note(machine=machine, level="warning", text=f"left out: {each}")
    if len(what) > _MOST_NAMED:
        more = len(what) - _MOST_NAMED
        yield Note(machine=machine, level="warning", text=f"and {more} more were left out")


def _size(count: int) -> str:
    return f"{count} bytes" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"
