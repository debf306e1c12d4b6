"""Makes images from their recipes and puts them into the store, at once or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import cache, catalog, drafts, recipes
from vmctl.images.job import Builder, Job, Product, Progress
from vmctl.machine.model import Image
from vmctl.store import files, locks
from vmctl.store.layout import Layout

_PUBLIC_DIRECTORY = 0o755
_FORMAT = 1


def ensure(layout: Layout, name: str, deadline: Deadline, progress: Progress) -> Image:
    """Return an image, building it first when it is absent or its recipe has changed.

    Of several callers at once, one builds and the others wait. Raises NotFoundError, HostError,
    RefusedError, ConflictError (another builder outlasts the deadline), WaitTimeoutError.
    """
    image = catalog.find(layout, name)
    if image.present:
        return image
    job = Job(layout, name, deadline, progress)
    with _alone(job):
        image = catalog.find(layout, name)
        return image if image.present else _build(job, force=True)[0]


def renew(
    layout: Layout,
    name: str,
    deadline: Deadline,
    progress: Progress,
    *,
    force: bool,
    consent: bool = False,
) -> tuple[Image, bool]:
    """Bring an image up to date with its packages or its publisher; `force` in any case.

    `consent` accepts a change of what was pulled that nobody has signed. Returns the image and
    whether it was made anew. Raises as `ensure` does.
    """
    job = Job(layout, name, deadline, progress, renew=True, consent=consent)
    with _alone(job):
        return _build(job, force=force)


@contextlib.contextmanager
def _alone(job: Job) -> Iterator[None]:
    lock = job.layout.lock("image", job.name)
    with locks.hold(lock, job.deadline, f"Image '{job.name}'"), _full_disk_said():
        yield


@contextlib.contextmanager
def _full_disk_said() -> Iterator[None]:
    """Turn the failures of a full disk, and other failures of files, into an error for people."""
    try:
        yield
    except OSError as problem:
        path = pathlib.Path(str(problem.filename or "the store"))
        raise files.unusable(path, problem) from None
    except errors.ProgramError as problem:
        if "No space left on device" in problem.details or "quota" in problem.details:
            raise errors.HostError(
                "The disk is full: building an image takes about 1 GiB for a short time.",
                hint="Free some space, or choose another place: export VMCTL_HOME=DIRECTORY",
                details=problem.details,
            ) from None
        raise


def _build(job: Job, *, force: bool) -> tuple[Image, bool]:
    make = _builder(job.name)
    files.make_directory(job.layout.images)
    files.make_directory(job.layout.image_names)
    drafts.clear(job.layout, job.name)
    current = catalog.find(job.layout, job.name)
    if current.present and not force:
        job = dataclasses.replace(job, known=_record_inputs(job))
    with drafts.workshop(job.layout, job.name) as directory:
        product = make(job, _made(directory / "work"))
        if product is None:
            return current, False
        return _publish(job, product, _made(directory / "image")), True


def _builder(name: str) -> Builder:
    """Return what makes this image; the modules are loaded only where they are used."""
    kind = recipes.read(name).builder.value
    if kind == "tiny":
        from vmctl.images import tiny

        return tiny.make
    if kind == "debian":
        from vmctl.images import debian

        return debian.make
    if kind == "pull":
        from vmctl.images import pull

        return pull.make
    raise errors.UsageError(
        f"The recipe of image '{name}' names the builder '{kind}', which this vmctl does not have.",
        hint="There is: tiny, debian, pull",
    )


def _made(directory: pathlib.Path) -> pathlib.Path:
    directory.mkdir()
    return directory


def _publish(job: Job, product: Product, draft: pathlib.Path) -> Image:
    """Put a finished image into the store, under the digest of what it holds."""
    facts = {
        "format": _FORMAT,
        **catalog.promised(job.name),
        **product.facts,
        "files": {name: _described(path) for name, path in sorted(product.files.items())},
    }
    digest = _digest(facts)
    for name, path in product.files.items():
        _move(path, draft / name)
    files.write_json(draft / catalog.FACTS, facts | {"digest": digest}, files.SHARED)
    draft.chmod(_PUBLIC_DIRECTORY)
    final = job.layout.image(digest)
    if catalog.stored(job.layout, digest) is None or damage(job.layout, digest):
        shutil.rmtree(final, ignore_errors=True)
        files.publish(draft, final)
    record = {
        "digest": digest,
        "recipe": recipes.fingerprint(job.name),
        "inputs": product.inputs,
    }
    files.write_json(catalog.record_path(job.layout, job.name), record, files.SHARED)
    image = catalog.stored(job.layout, digest)
    assert image is not None
    return image


def _move(path: pathlib.Path, place: pathlib.Path) -> None:
    """Give a builder's file its place in the image, readable to QEMU and safe on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, files.SHARED)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.rename(place)


def _described(path: pathlib.Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": cache.sha256_of(path)}


def _digest(facts: dict[str, Any]) -> str:
    """Return the digest of all that a guest can tell apart: files, command line, drivers."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _record_inputs(job: Job) -> str:
    record = files.read_json(catalog.record_path(job.layout, job.name)) or {}
    return str(record.get("inputs", ""))


def damage(layout: Layout, digest: str) -> list[str]:
    """Return the files of an image that are not what was recorded; empty when all is well."""
    recorded = (catalog.facts(layout, digest) or {}).get("files", {})
    damaged = []
    for name, expected in sorted(recorded.items()):
        path = layout.image(digest) / name
        try:
            with path.open("rb") as stream:
                actual = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            actual = ""
        if actual != expected.get("sha256"):
            damaged.append(name)
    return damaged
