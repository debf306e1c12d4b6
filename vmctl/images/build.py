"""Makes images from their recipes and puts them into the store, at once or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import catalog, distribution, drafts, packages, recipes, tiny
from vmctl.machine.model import Image
from vmctl.store import files, locks
from vmctl.store.layout import Layout

_PUBLIC_DIRECTORY = 0o755
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class _Job:
    """One build: what for, and how long it may take."""

    layout: Layout
    name: str
    deadline: Deadline
    progress: packages.Progress


def ensure(layout: Layout, name: str, deadline: Deadline, progress: packages.Progress) -> Image:
    """Return an image, building it first when it is absent or its recipe has changed.

    Of several callers at once, one builds and the others wait. Raises NotFoundError, HostError,
    RefusedError, ConflictError (another builder outlasts the deadline), WaitTimeoutError.
    """
    image = catalog.find(layout, name)
    if image.present:
        return image
    job = _Job(layout, name, deadline, progress)
    with _alone(job):
        image = catalog.find(layout, name)
        return image if image.present else _build(job, force=True)[0]


def renew(
    layout: Layout, name: str, deadline: Deadline, progress: packages.Progress, *, force: bool
) -> tuple[Image, bool]:
    """Bring an image up to date with its packages; `force` builds it in any case.

    Returns the image and whether it was built. Raises as `ensure` does.
    """
    job = _Job(layout, name, deadline, progress)
    with _alone(job):
        return _build(job, force=force)


@contextlib.contextmanager
def _alone(job: _Job) -> Iterator[None]:
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


def _build(job: _Job, *, force: bool) -> tuple[Image, bool]:
    recipe = recipes.read(job.name)
    if recipe.builder != "tiny":
        raise errors.UsageError(
            f"The recipe of image '{job.name}' names the builder '{recipe.builder}', which this "
            "vmctl does not have.",
            hint="There is: tiny",
        )
    files.make_directory(job.layout.images)
    files.make_directory(job.layout.image_names)
    drafts.clear(job.layout, job.name)
    with drafts.workshop(job.layout, job.name) as directory:
        apt = packages.Apt(job.progress)
        known = distribution.names()
        wanted = apt.resolve(known, job.deadline)
        current = catalog.find(job.layout, job.name)
        if not force and current.present and _record_inputs(job) == _inputs(job.name, wanted):
            return current, False
        wanted = apt.fetch(wanted, known, _made(directory / "fetched"), job.deadline)
        parts = _unpack_and_assemble(job, wanted, directory)
        return _publish(job, parts, wanted, _made(directory / "image")), True


def _made(directory: pathlib.Path) -> pathlib.Path:
    directory.mkdir()
    return directory


def _unpack_and_assemble(
    job: _Job, wanted: Sequence[packages.Package], directory: pathlib.Path
) -> tiny.Parts:
    job.progress("Unpacking packages", 0, 0)
    root = _made(directory / "root")
    packages.unpack(wanted, root, job.deadline)
    job.progress("Putting the image together", 0, 0)
    return tiny.assemble(root, job.deadline)


def _publish(
    job: _Job,
    parts: tiny.Parts,
    wanted: Sequence[packages.Package],
    draft: pathlib.Path,
) -> Image:
    contents = {catalog.KERNEL: parts.kernel, catalog.INITRD: parts.initrd}
    if parts.kernel is not parts.bzimage:
        contents[catalog.BZIMAGE] = parts.bzimage
    facts = {
        "format": _FORMAT,
        **catalog.promised(job.name),
        "files": {name: _described(content) for name, content in contents.items()},
        "kernel_release": parts.release,
        "packages": {each.name: each.version for each in wanted},
    }
    digest = _digest(facts)
    draft.chmod(_PUBLIC_DIRECTORY)
    for name, content in contents.items():
        files.write(draft / name, content, files.SHARED)
    files.write_json(draft / catalog.FACTS, facts | {"digest": digest}, files.SHARED)
    final = job.layout.image(digest)
    if catalog.stored(job.layout, digest) is None or damage(job.layout, digest):
        shutil.rmtree(final, ignore_errors=True)
        files.publish(draft, final)
    record = {
        "digest": digest,
        "recipe": recipes.fingerprint(job.name),
        "inputs": _inputs(job.name, wanted),
    }
    files.write_json(catalog.record_path(job.layout, job.name), record, files.SHARED)
    image = catalog.stored(job.layout, digest)
    assert image is not None
    return image


def _described(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _digest(facts: dict[str, Any]) -> str:
    """Return the digest of all that a guest can tell apart: files, command line, drivers."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _inputs(name: str, wanted: Sequence[packages.Package]) -> str:
    """Return the digest of all that goes into an image; known before it is built."""
    sums = sorted((package.name, package.version, package.sha256) for package in wanted)
    return hashlib.sha256(json.dumps([recipes.fingerprint(name), sums]).encode()).hexdigest()


def _record_inputs(job: _Job) -> str:
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
