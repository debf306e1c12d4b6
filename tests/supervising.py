"""A supervisor with its real socket and threads, over machines that are none."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest.ssh import Access
from vmctl.runner.pooling import lease, pool, pool_client, supervisor
from vmctl.runner.pooling.pool import Pool
from vmctl.runner.pooling.ready import Ready
from vmctl.store.layout import Layout

LONG = Deadline.after(3600.0)
"""From when the tests are collected, and others run before."""


class Machines:
    """Stands for a Workshop; `broken` is why no machine can be made, `stuck` why none goes.

    `foreign` is why one stays that is not the pool's.
    """

    broken = ""
    stuck = ""
    foreign = ""
    made: list[int]
    removed: list[int]

    def __init__(self, layout: Layout, found: Pool, say: Callable[[int, str], None]) -> None:
        self.pool = found
        self._numbers = itertools.count(1)
        self._place = layout.pool(found.name)

    def adopt(self, number: int) -> Ready | None:
        return None

    def renew(self, number: int) -> Ready:
        if Machines.broken:
            raise errors.HostError(Machines.broken, hint="Mend it.")
        place = self._place.lease(number)
        if not place.exists():
            lease.grant(place, "")
        Machines.made.append(number)
        path = pathlib.Path("/nowhere")
        access = Access(name="x", host="x", port=1, user="x", key=path, known_hosts=path, alias="x")
        generation = f"{number}-{next(self._numbers)}"
        return Ready(
            machine=self.pool.machine(number), access=access, generation=generation, key="k"
        )

    def remove(self, number: int) -> str:
        if Machines.stuck:
            raise errors.HostError(Machines.stuck, hint="Mend it.")
        Machines.removed.append(number)
        self._place.lease(number).unlink(missing_ok=True)
        return Machines.foreign

    def stop(self) -> None:
        pass


def without_machines(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Return a store whose supervisors work on no machines."""
    monkeypatch.setenv("VMCTL_HOME", str(tmp_path))
    monkeypatch.setattr(supervisor, "Workshop", Machines)
    monkeypatch.setattr(supervisor, "_usable", lambda _slot: True)
    for words in ("broken", "stuck", "foreign"):
        monkeypatch.setattr(Machines, words, "")
    monkeypatch.setattr(Machines, "made", [], raising=False)
    monkeypatch.setattr(Machines, "removed", [], raising=False)
    return Layout(tmp_path)


@contextlib.contextmanager
def supervised(layout: Layout, slots: int = 2) -> Iterator[threading.Thread]:
    """Have a pool supervised for the length of the block, and deleted at its end."""
    made = Pool(name="ci", spec="/x.yaml", uri="test:///default", slots=slots, refills=2)
    pool.create(layout, made, None)
    begun = threading.Event()
    thread = threading.Thread(target=supervisor.serve, args=(layout, "ci", begun.set))
    thread.start()
    try:
        assert begun.wait(60)
        yield thread
    finally:
        Machines.stuck = ""
        # It may just be ending by itself.
        with contextlib.suppress(errors.ConflictError):
            pool_client.ask(layout, "ci", LONG, ask="delete", force=True)
        thread.join()
        assert not layout.pool("ci").directory.exists()


def states(layout: Layout) -> list[str]:
    told = pool_client.status(layout, "ci")
    assert told is not None
    return [slot["state"] for slot in told["slots"]]


def until(fits: Callable[[], Any]) -> None:
    end = Deadline.after(60.0)
    while not fits():
        assert not end.passed
        end.pause(0.005)
