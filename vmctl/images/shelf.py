"""Puts finished images into the store, by their digest, at once or not at all.

A disk of which nothing but its content is known is called after the digest of that content, every
other image after the digest of its facts: of all that a guest can tell apart, and of its files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import cache, catalog, drivers
from vmctl.machine.model import DiskFormat, Image
from vmctl.store import files, locks
from vmctl.store.layout import Layout

_FACTS_FORMAT = 1
_PUBLIC_DIRECTORY = 0o755
_FULL = ("No space left", "quota")
"""What programs say where a disk is full."""


def disk_facts(
    format: DiskFormat,  # noqa: A002
    size: int,
    length: int,
    sha256: str,
    description: str,
    drives: Collection[str] = drivers.STANDARD,
) -> dict[str, Any]:
    """Return the facts of a disk of which nothing more is known.

    `size` is that of the disk, `length` that of the file, both in bytes.
    """
    return {
        "description": description,
        "cmdline": "",
        "drivers": sorted(drives),
        "ready_pattern": "",
        "ready_timeout": 0.0,
        "agent": False,
        "login": "",
        "disk_format": format.value,
        "size": size,
        "files": {catalog.disk_name(format): {"size": length, "sha256": sha256}},
    }


def described(path: pathlib.Path) -> dict[str, Any]:
    """Return what an image's facts say of one of its files. Raises OSError."""
    return {"size": path.stat().st_size, "sha256": cache.sha256_of(path)}


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


def publish(
    layout: Layout, draft: pathlib.Path, facts: Mapping[str, Any], what: str, deadline: Deadline
) -> Image:
    """Give a draft its place, with its facts; one that is there already and whole is as good.

    `facts` may name the digest; else it is their own. `what` is what errors call the image. Others
    may publish the same content at this moment: hence the lock. Raises ConflictError when one of
    them outlasts the deadline, OSError, HostError.
    """
    known = {"format": _FACTS_FORMAT, **facts}
    digest = str(known.setdefault("digest", _digest(known)))
    final = layout.image(digest)
    with locks.hold(layout.lock("image", digest), deadline, what):
        there = catalog.stored(layout, digest)
        if there is not None and not _damaged(final, known["files"]):
            return there
        shutil.rmtree(final, ignore_errors=True)
        files.write_json(draft / catalog.FACTS, known, files.SHARED)
        draft.chmod(_PUBLIC_DIRECTORY)
        files.publish(draft, final)
    image = catalog.stored(layout, digest)
    assert image is not None
    return image


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def damage(layout: Layout, digest: str) -> list[str]:
    """Return the files of an image that are not what was recorded; empty when all is well."""
    recorded = (catalog.facts(layout, digest) or {}).get("files", {})
    return _damaged(layout.image(digest), recorded)


def _damaged(directory: pathlib.Path, expected: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = []
    for name, each in sorted(expected.items()):
        try:
            actual = cache.sha256_of(directory / name)
        except OSError:
            actual = ""
        if actual != each.get("sha256"):
            found.append(name)
    return found


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


@contextlib.contextmanager
def failures_said(layout: Layout) -> Iterator[None]:
    """Turn a full disk, and other failures of files, into an error for people."""
    try:
        yield
    except OSError as problem:
        path = pathlib.Path(str(problem.filename or layout.images))
        raise files.unusable(path, problem) from None
    except errors.ProgramError as problem:
        if not any(words in problem.details for words in _FULL):
            raise
        raise errors.HostError(
            f"The disk of '{layout.home}' is full: what an image is made of lies there too.",
            hint="Free some space, or choose another place: export VMCTL_HOME=DIRECTORY",
            details=problem.details,
        ) from None
