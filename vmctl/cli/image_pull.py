"""`vmctl image pull`: published images, fetched and verified."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from vmctl.images.job import Progress
    from vmctl.lifecycle.schedule import Worker
    from vmctl.machine.model import DiskFormat, Image

_WAIT_SECONDS = 6 * 3600.0
"""How long one waits for another vmctl that pulls the same; a download has no total time."""

_Pull = Callable[["Progress"], tuple["Image", bool]]


@click.command()
@click.argument("what", metavar="NAME|URL")
@click.option("--renew", is_flag=True, help="Accept that the image has changed since last time.")
@click.option("--sha256", default="", metavar="HEX", help="What the file at URL must be.")
@click.option(
    "--format", "format_", type=click.Choice(["qcow2", "raw"]), help="Format of the file at URL."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def pull(
    context: contexts.Context,
    *,
    what: str,
    renew: bool,
    sha256: str,
    format_: str | None,
    as_json: bool,
) -> None:
    """Fetch a published image and verify it, or bring it up to date.

    With a URL, its sha256 is printed as a spec wants it. An interrupted download goes on where it
    stopped. Machines that exist keep the image that they were made with.
    """
    from vmctl.lifecycle import schedule
    from vmctl.ui import progress

    address = "://" in what
    prepared = _of_address if address else _of_name
    job = prepared(what, sha256, format_, renew=renew)
    results: list[tuple[Image, bool]] = []

    def work(_: str, worker: Worker) -> None:
        from vmctl import errors

        with worker.step("pull image", patient=True) as tell:

            def told(text: str, done: int, total: int) -> None:
                if worker.cancelled:
                    raise errors.InterruptError("Interrupted; the same command goes on from here.")
                tell(text, done, total)

            results.append(job(told))
            tell("pulled" if results[0][1] else "nothing has changed")
        if not address:
            _remark(what, worker)

    progress.follow(schedule.carry_out([what], {}, work), quiet=context.quiet)
    ((image, new),) = results
    _show(what if address else "", image, new=new, as_json=as_json)


def _remark(name: str, worker: Worker) -> None:
    """Say so where a signature was not checked."""
    from vmctl.images import pull as pulling
    from vmctl.store.layout import Layout

    text, hint = pulling.remarks(Layout.default(), name)
    if text:
        worker.note("warning", text, hint)


def _of_name(name: str, sha256: str, format_: str | None, *, renew: bool) -> _Pull:
    from vmctl import errors
    from vmctl.deadline import Deadline
    from vmctl.images import build, recipes
    from vmctl.store.layout import Layout

    if sha256 or format_:
        raise errors.UsageError(
            f"'{name}' is the name of an image; --sha256 and --format belong to a URL.",
            hint=f"Run: vmctl image pull {name}",
        )
    if recipes.read(name).builder.value != "pull":
        raise errors.UsageError(
            f"The image '{name}' is built, not pulled.", hint=f"Run: vmctl image build {name}"
        )
    layout = Layout.default()

    def job(told: Progress) -> tuple[Image, bool]:
        deadline = Deadline.after(_WAIT_SECONDS)
        return build.renew(layout, name, deadline, told, force=False, consent=renew)

    return job


def _of_address(url: str, sha256: str, format_: str | None, *, renew: bool) -> _Pull:
    from vmctl import errors
    from vmctl.images import pull as pulling
    from vmctl.spec import scalars
    from vmctl.store.layout import Layout

    if not re.fullmatch(scalars.URL, url):
        raise errors.UsageError(
            f"'{url}' is no address that can be pulled from.",
            hint="It begins with https:// and has no password in it.",
        )
    if sha256 and not re.fullmatch(scalars.SHA256, sha256):
        raise errors.UsageError(f"--sha256 takes 64 hexadecimal digits; got '{sha256}'.")
    kind, layout = _format(url, format_), Layout.default()

    def job(told: Progress) -> tuple[Image, bool]:
        if not sha256:
            return pulling.pull_address(layout, url, kind, told, consent=renew)
        wanted = sha256.lower()
        present = pulling.find_address(layout, url, wanted, kind).present
        return pulling.ensure_address(layout, url, wanted, kind, told), not present

    return job


def _format(url: str, written: str | None) -> DiskFormat:
    """Return the format that was declared, by the option or by the name of the file."""
    from vmctl import errors
    from vmctl.machine.model import DiskFormat

    path = url.partition("?")[0]
    declared = written or next((each for each in DiskFormat if path.endswith(f".{each}")), None)
    if declared is None:
        raise errors.UsageError(
            f"The name of '{path}' does not say what format it has, and a format is never guessed.",
            hint="Say it: --format qcow2 (what most publishers call .img is one), or --format raw",
        )
    return DiskFormat(declared)


def _show(url: str, image: Image, *, new: bool, as_json: bool) -> None:
    if as_json:
        from vmctl.ui import json_out

        facts = {"name": image.name, "digest": image.digest, "size": image.size, "pulled": new}
        json_out.emit(facts | ({"url": url, "sha256": image.digest} if url else {}))
    elif url:
        click.echo(f"image: {{url: '{url}', sha256: {image.digest}, format: {image.disk_format}}}")
