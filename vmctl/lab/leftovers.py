"""What a killed comparison left, for `gc`: guests, containers, their network, files.

The next comparison clears it as well. Libvirt ends the guests with the connection that started
them; only those that were running while libvirt itself was killed or started anew stay.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Collection, Iterator

from vmctl import errors
from vmctl.hypervisor import domains
from vmctl.hypervisor.connection import Connection
from vmctl.lab import field
from vmctl.lifecycle import schedule
from vmctl.lifecycle.events import Event
from vmctl.lifecycle.leftovers import Kind, Leftover
from vmctl.lifecycle.schedule import Worker
from vmctl.store import locks
from vmctl.store.layout import Layout

_PREFIX = "lab-"
_GUEST = re.compile(r"lab-(?P<token>[0-9a-f]{8})-[a-z-]+")
_BLOCK = 512
"""st_blocks counts these (stat(2))."""


def find(connection: Connection, layout: Layout, names: Collection[str] = ()) -> list[Leftover]:
    """Return what comparisons of this store left; nothing while one of them goes on."""
    if locks.held(layout.lock("lab", "compare")):
        return []
    found = []
    guests = _guests(connection, layout)
    for token in sorted({*_places(layout), *guests}):
        name, place = f"{_PREFIX}{token}", layout.lab / token
        if names and name not in names:
            continue
        count = len(guests.get(token, ()))
        what = f", and {count} of its guests run" if count else ""
        found.append(
            Leftover(
                kind=Kind.COMPARISON,
                name=name,
                where=os.fspath(place),
                size=_taken(place),
                why=f"'compare' was killed{what}",
            )
        )
    return found


def clear(connection: Connection, layout: Layout, chosen: Collection[Leftover]) -> Iterator[Event]:
    """Remove leftovers, unless a comparison goes on; then it raises ConflictError."""

    def work(name: str, worker: Worker) -> None:
        token = name.removeprefix(_PREFIX)
        with (
            locks.hold(layout.lock("lab", "compare"), None, "The lab"),
            worker.step("remove what a comparison left"),
        ):
            for guest in _guests(connection, layout).get(token, ()):
                domain = domains.find(connection, guest)
                if domain is not None:
                    domains.force_off(domain)
            field.clear_place(layout.lab / token)

    names = [leftover.name for leftover in chosen]
    yield from schedule.carry_out(names, {}, work)


def _places(layout: Layout) -> list[str]:
    try:
        return os.listdir(layout.lab)
    except OSError:
        return []


def _guests(connection: Connection, layout: Layout) -> dict[str, list[str]]:
    """Return by token the guests whose console lies in this store's lab."""
    found: dict[str, list[str]] = {}
    for name in domains.names(connection):
        match = _GUEST.fullmatch(name)
        if match is None:
            continue
        try:
            xml = domains.live_xml(connection, name)
        except errors.NotFoundError:
            continue
        if os.fspath(layout.lab / match["token"]) in xml:
            found.setdefault(match["token"], []).append(name)
    return found


def _taken(place: pathlib.Path) -> int:
    """Return how many bytes the files below a directory take on disk."""
    return sum(path.lstat().st_blocks * _BLOCK for path in place.rglob("*"))
