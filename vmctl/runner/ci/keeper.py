"""Keeps a warm machine of a pool from one call of a CI system to the next.

A claim lives as long as the process that made it, and the calls come and go: so a process beside
them has it, until the file that says whose machine it is has gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest.ssh import Access
from vmctl.runner import background
from vmctl.runner.pooling import pool_client
from vmctl.runner.pooling.pool_client import Claim
from vmctl.runner.pooling.ready import Ready
from vmctl.store import files, locks

_LOOK_SECONDS = 0.2


def take(pool: str, place: pathlib.Path, tag: dict[str, Any]) -> None:
    """Have a process of its own claim a machine, and return when it has one.

    `place` is the file that says whose it is: while it is there, the machine is kept. Raises what
    `pool_client.claimed` raises, as VmctlError.
    """
    written = {**tag, "pool_name": pool, "nonce": os.urandom(8).hex()}
    files.write_json(place, written)

    def work(begun: Callable[[], None]) -> None:
        with _alive(place), pool_client.claimed(pool) as claim:
            if not _wanted(place, written):
                return
            files.write_json(place, {**written, **_described(claim)})
            begun()
            while _wanted(place, written):
                time.sleep(_LOOK_SECONDS)
            claim.end()

    try:
        background.detach(_log(place), work)
    except errors.VmctlError:
        # Not what a later call for the same key has written meanwhile.
        if _wanted(place, written):
            files.remove(place)
            files.remove(_log(place))
        raise


def _log(place: pathlib.Path) -> pathlib.Path:
    return place.with_suffix(".log")


def _described(claim: Claim) -> dict[str, Any]:
    ready = Ready(
        machine=claim.machine, access=claim.access, generation=claim.generation, key=""
    ).as_dict()
    return {"machine": claim.machine, "way": ready, "console": claim.offset}


def _wanted(place: pathlib.Path, written: dict[str, Any]) -> bool:
    """Tell whether the file is there still, and not another one's by now."""
    there = files.read_json(place)
    return there is not None and there.get("nonce") == written["nonce"]


@contextlib.contextmanager
def _alive(place: pathlib.Path) -> Iterator[None]:
    """Hold a lock on our log, by which others see that the machine is kept."""
    descriptor = os.open(_log(place), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def kept(place: pathlib.Path) -> bool:
    """Tell whether a process keeps the machine that a file stands for."""
    return locks.held(_log(place))


def access(place: pathlib.Path) -> Access | None:
    """Return the way into a machine that is kept; None where the file is of no such machine.

    Raises GuestError where nobody keeps it any more: it may be another job's by now.
    """
    tag = files.read_json(place) or {}
    if "way" not in tag:
        return None
    ready = Ready.from_dict(tag["way"])
    if not kept(place):
        raise errors.GuestError(
            f"Machine '{ready.machine}' of pool '{tag.get('pool_name')}' was given back while it "
            "was needed: the process that kept it has ended.",
            hint="See what its supervisor does: vmctl pool list",
        )
    return ready.access


def console_since(place: pathlib.Path) -> int:
    """Return the byte of the machine's console log from which on it is this job's."""
    return int((files.read_json(place) or {}).get("console", 0))


def give_back(place: pathlib.Path, deadline: Deadline) -> None:
    """Give a machine back to its pool, and return when that was done or the time is over.

    One that was not claimed yet is given back as soon as it is; nobody waits for that.
    """
    claimed = "way" in (files.read_json(place) or {})
    files.remove(place)
    while claimed and kept(place) and not deadline.passed:
        deadline.pause(_LOOK_SECONDS / 4)
    files.remove(_log(place))
