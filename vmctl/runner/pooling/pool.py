"""What a warm pool is: kept in the store, so that whoever supervises it next knows."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Iterator

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.store import files, locks
from vmctl.store.layout import Layout, PoolFiles

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
"""A pool's name: the names of its machines are made of it (RFC 1123 allows 63 characters)."""

MOST_SLOTS = 200
MOST_REFILLS = 16
_LOCK_SECONDS = 10.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool as it was asked for; `spec` is the file that its machines are made from.

    `refills` is how many slots may be made or reset at a time, `memory_limit` how much memory
    (bytes) all slots may have together, 0 for no limit. `allow_tcg` accepts that jobs are held by
    an emulator that promises no isolation. `drained` hands no slots out. `idle` is after how many
    seconds without a job the supervisor puts its machines to rest and ends, 0 for never.
    """

    name: str
    spec: str
    uri: str
    slots: int
    refills: int = 1
    memory_limit: int = 0
    allow_tcg: bool = False
    allow_outside: bool = False
    sets: tuple[str, ...] = ()
    drained: bool = False
    idle: float = 0.0

    def machine(self, number: int) -> str:
        """Return the name of the machine of a slot (numbers begin with 1)."""
        return f"{self.name}-{number}"


_FIELDS = frozenset(field.name for field in dataclasses.fields(Pool))


def require_name(name: str) -> None:
    """Raise UsageError for what cannot name a pool."""
    if not NAME.fullmatch(name):
        raise errors.UsageError(
            f"'{name}' cannot name a pool.",
            hint="Use a-z, 0-9 and hyphens inside, 40 characters at most.",
        )


def write(layout: Layout, pool: Pool) -> None:
    """Keep what a pool is."""
    files.write_json(layout.pool(pool.name).record, dataclasses.asdict(pool))


def read(layout: Layout, name: str) -> Pool:
    """Return a pool; raises NotFoundError."""
    require_name(name)
    found = _read(layout.pool(name))
    if found is None:
        raise errors.NotFoundError(
            f"There is no pool '{name}'.",
            hint=f"See all: vmctl pool list; make one: vmctl pool create {name} SPEC|IMAGE",
        )
    return found


def _read(place: PoolFiles) -> Pool | None:
    data = files.read_json(place.record)
    if data is None:
        return None
    try:
        data["sets"] = tuple(data.get("sets", ()))
        found = Pool(**{key: value for key, value in data.items() if key in _FIELDS})
    except TypeError:
        return None
    # Another name would make it work on another pool's machines.
    return found if found.name == place.directory.name else None


def every(layout: Layout) -> Iterator[Pool]:
    """Yield all pools of the store, by name."""
    try:
        names = sorted(os.listdir(layout.pools))
    except OSError:
        return
    for name in names:
        found = _read(layout.pool(name))
        if found is not None:
            yield found


def require_free(layout: Layout, name: str) -> None:
    """Raise ConflictError where there is a pool of this name."""
    if layout.pool(name).record.exists():
        raise errors.ConflictError(
            f"There is a pool '{name}' already.",
            hint=f"See it: vmctl pool status {name}; change its size: vmctl pool scale {name} N",
        )


def create(layout: Layout, pool: Pool, spec: bytes | None) -> None:
    """Keep a new pool; `spec` is what its own spec file says where it has one.

    Raises ConflictError where there is one of this name.
    """
    place = layout.pool(pool.name)
    # Not "pool-…": that is the supervisor's lock of a pool whose name begins with that.
    lock = layout.lock("pools", pool.name)
    with locks.hold(lock, Deadline.after(_LOCK_SECONDS), f"Pool '{pool.name}'"):
        require_free(layout, pool.name)
        files.make_directory(place.directory, 0o700)
        if spec is not None:
            files.write(place.spec, spec)
        write(layout, pool)


def remove(layout: Layout, name: str) -> None:
    """Forget a pool whose machines are gone."""
    place = layout.pool(name)
    files.remove(place.record)
    shutil.rmtree(place.directory, ignore_errors=True)


def spec_of_image(image: str) -> bytes:
    """Return the spec of a pool that was made of an image's name."""
    return f"image: {image}\n".encode()


def leftover_slots(layout: Layout, pool: Pool) -> list[int]:
    """Return the numbers of all slots that were ever begun and are not removed."""
    leases = layout.pool(pool.name).directory.glob("slot-*.lease")
    numbers = (path.name.removeprefix("slot-").removesuffix(".lease") for path in leases)
    return sorted(int(each) for each in numbers if each.isdecimal())
