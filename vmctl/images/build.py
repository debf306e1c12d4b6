"""Makes images from their recipes and puts them into the store, at once or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import catalog, drafts, recipes, shelf
from vmctl.images.job import Builder, Job, Product, Progress
from vmctl.machine.model import Image
from vmctl.store import files, locks
from vmctl.store.layout import Layout


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
    with locks.hold(lock, job.deadline, f"Image '{job.name}'"), shelf.failures_said(job.layout):
        yield


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
    if kind == "lab":
        from vmctl.images import lab_host

        return functools.partial(lab_host.make, ensure)
    if kind == "pull":
        from vmctl.images import pull

        return pull.make
    raise errors.UsageError(
        f"The recipe of image '{name}' names the builder '{kind}', which this vmctl does not have.",
        hint="There is: tiny, debian, lab, pull",
    )


def _made(directory: pathlib.Path) -> pathlib.Path:
    directory.mkdir()
    return directory


def _publish(job: Job, product: Product, draft: pathlib.Path) -> Image:
    """Put a finished image into the store and give it its name."""
    for name, path in product.files.items():
        shelf.take(path, draft / name)
    facts = {
        **catalog.promised(job.name),
        **product.facts,
        "files": {name: shelf.described(draft / name) for name in sorted(product.files)},
    }
    image = shelf.publish(job.layout, draft, facts, f"Image '{job.name}'", job.deadline)
    record = {
        "digest": image.digest,
        "recipe": recipes.fingerprint(job.name),
        "inputs": product.inputs,
    }
    files.write_json(catalog.record_path(job.layout, job.name), record, files.SHARED)
    return image


def _record_inputs(job: Job) -> str:
    record = files.read_json(catalog.record_path(job.layout, job.name)) or {}
    return str(record.get("inputs", ""))
