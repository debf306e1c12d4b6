"""Puts finished disks into the store, by the digest of their content, at once or not at all."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import Any

from vmctl.deadline import Deadline
from vmctl.images import cache, catalog
from vmctl.machine.model import DiskFormat
from vmctl.store import files, locks
from vmctl.store.layout import Layout

_FACTS_FORMAT = 1
_PUBLIC_DIRECTORY = 0o755

DRIVERS = ("ahci", "e1000", "e1000e", "ide", "virtio")
"""What the kernel on a disk is assumed to drive where nobody says: all that guests are shown."""


def facts(
    name: str,
    description: str,
    format: DiskFormat,  # noqa: A002
    size: int,
    length: int,
    sha256: str,
) -> dict[str, Any]:
    """Return the facts of a disk of which nothing more is known than what it was called.

    `size` is that of the disk, `length` that of the file, both in bytes.
    """
    return {
        "format": _FACTS_FORMAT,
        "name": name,
        "description": description,
        "cmdline": "",
        "drivers": sorted(DRIVERS),
        "ready_pattern": "",
        "ready_timeout": 0.0,
        "agent": False,
        "login": "",
        "disk_format": format.value,
        "size": size,
        "files": {catalog.disk_name(format): {"size": length, "sha256": sha256}},
        "digest": sha256,
    }


def take(source: pathlib.Path, place: pathlib.Path) -> None:
    """Move a file into a draft, also from another file system, and make it safe there.

    The file stays where it was until the draft has all of it. Raises OSError.
    """
    try:
        source.rename(place)
    except OSError:
        shutil.copyfile(source, place)
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, files.SHARED)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    source.unlink(missing_ok=True)


def publish(layout: Layout, draft: pathlib.Path, known: dict[str, Any], deadline: Deadline) -> None:
    """Give a draft its place, with its facts; one that is there already and whole is as good.

    Others may publish the same content at this moment: hence the lock.
    """
    digest = str(known["digest"])
    final = layout.image(digest)
    with locks.hold(layout.lock("image", digest), deadline, f"Image '{known['name']}'"):
        if catalog.stored(layout, digest) is not None and _whole(final, known):
            return
        shutil.rmtree(final, ignore_errors=True)
        files.write_json(draft / catalog.FACTS, known, files.SHARED)
        draft.chmod(_PUBLIC_DIRECTORY)
        files.publish(draft, final)


def _whole(directory: pathlib.Path, known: dict[str, Any]) -> bool:
    try:
        return all(
            cache.sha256_of(directory / name) == each["sha256"]
            for name, each in known["files"].items()
        )
    except OSError:
        return False


def with_content(layout: Layout, sha256: str) -> pathlib.Path | None:
    """Return a disk in the store that has this content, or None; one that is damaged has not."""
    for place in sorted(layout.images.glob(f"*/{catalog.FACTS}")):
        known = (files.read_json(place) or {}).get("files", {})
        for name, each in known.items():
            path = pathlib.Path(place.parent, str(name))
            try:
                if each["sha256"] == sha256 and cache.sha256_of(path) == sha256:
                    return path
            except (OSError, TypeError, KeyError):
                continue
    return None
