"""Images that users bring along: a disk, or a container image, under a name of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import build, catalog, drafts, drivers, local, recipes, shelf
from vmctl.images.job import Progress
from vmctl.machine.model import DiskFormat, Image
from vmctl.store import files, home, locks
from vmctl.store.layout import Layout

_LONGEST_NAME = 63


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be imported, and under which name; `replace` takes the place of another."""

    name: str
    path: str
    replace: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a user says of a disk: nothing else can know it."""

    cloud_init: bool = False
    user: str = ""
    drivers: frozenset[str] = frozenset(drivers.STANDARD)
    description: str = ""


def disk(
    layout: Layout,
    order: Order,
    format: DiskFormat,  # noqa: A002
    traits: Traits,
    deadline: Deadline,
    progress: Progress,
) -> Image:
    """Give a disk image of the user's a name; the file is only read, and copied once.

    Raises what `gate.admit` raises; ConflictError for a name that is taken or a file that changes,
    HostError when the disk is full, WaitTimeoutError.
    """
    with _naming(layout, order, deadline) as draft:
        copy = local.copied(layout, order.path, format, draft, deadline, progress)
        description = traits.description or "a disk image of the user's own"
        known = shelf.disk_facts(
            format, copy.size, copy.length, copy.sha256, description, traits.drivers
        )
        facts = {**known, "cloud_init": traits.cloud_init, "user": traits.user}
        return _publish(layout, order, draft, facts, {"kind": "disk"}, deadline)


def container(
    layout: Layout, order: Order, reference: str, deadline: Deadline, progress: Progress
) -> Image:
    """Make a bootable image of a container image (OCI layout, or a `docker save` archive).

    Raises RefusedError for one that is not what it should be, HostError, ConflictError,
    UsageError, WaitTimeoutError.
    """
    # Needed here alone, and dear to import.
    from vmctl.images import bootable

    _require_grammar(order.name)
    if order.name == bootable.TINY:
        raise errors.ConflictError(
            f"Containers are started with the kernel of the image '{order.name}', which therefore "
            "cannot be replaced by one.",
            hint="Choose another name.",
        )
    path = pathlib.Path(order.path)
    with _naming(layout, order, deadline) as draft, shelf.failures_said(layout):
        tiny = build.ensure(layout, bootable.TINY, deadline, progress)
        work = bootable.Work(layout, path, draft, deadline, progress)
        facts, source = bootable.make(work, tiny, reference)
        return _publish(layout, order, draft, facts, source, deadline)


def require_name(layout: Layout, name: str, *, replace: bool) -> None:
    """Raise UsageError for what cannot be a name, ConflictError for a taken one: before the work.

    `replace` takes the place of an image of this name.
    """
    _require_grammar(name)
    if not replace:
        _refuse_taken(layout, name)


@contextlib.contextmanager
def _naming(layout: Layout, order: Order, deadline: Deadline) -> Iterator[pathlib.Path]:
    """Hold the name for the block and give a private directory for the image's files."""
    _require_grammar(order.name)
    if not os.path.lexists(order.path):
        raise errors.NotFoundError(f"There is no file '{order.path}'.")
    home.opened(layout)
    with locks.hold(layout.lock("image", order.name), deadline, f"Image '{order.name}'"):
        if not order.replace:
            _refuse_taken(layout, order.name)
        drafts.clear(layout, order.name)
        with drafts.workshop(layout, order.name) as draft:
            yield draft


def _require_grammar(name: str) -> None:
    if len(name) > _LONGEST_NAME or not catalog.is_name(name):
        raise errors.UsageError(
            f"'{name}' cannot be the name of an image.",
            hint="Small letters and digits, with '.', '_' and '-' between them, such as my-app-1.2",
        )


def _refuse_taken(layout: Layout, name: str) -> None:
    if catalog.record(layout, name) or name in recipes.names():
        recipe = " (it comes with a recipe)" if name in recipes.names() else ""
        raise errors.ConflictError(
            f"There is an image '{name}' already{recipe}.",
            hint=f"Choose another name, or let it take that one's place: --replace {name}",
        )


def _publish(
    layout: Layout,
    order: Order,
    draft: pathlib.Path,
    facts: Mapping[str, Any],
    source: Mapping[str, Any],
    deadline: Deadline,
) -> Image:
    """Put a finished draft into the store under the digest of its facts, and name it.

    The name, the file it came from and the time are not part of the image: the same content has
    the same digest, whatever it is called.
    """
    image = shelf.publish(layout, draft, facts, f"Image '{order.name}'", deadline)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    imported = {"from": os.path.abspath(order.path), "at": now, **source}
    record = {"digest": image.digest, catalog.IMPORTED: imported}
    files.write_json(layout.image_names / f"{order.name}.json", record, files.SHARED)
    return catalog.find(layout, order.name)
