"""`vmctl image import`: a disk or a container image of the user's own, under a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmctl.cli import context as contexts
from vmctl.images import drivers as devices

if TYPE_CHECKING:
    from vmctl.images.imports import Order, Traits
    from vmctl.lifecycle.schedule import Worker
    from vmctl.machine.model import Image
    from vmctl.store.layout import Layout

_SECONDS = 3600.0
"""A large container image on a slow disk."""


@click.command("import")
@click.argument("name")
@click.argument("file", type=click.Path())
@click.option("--format", "format_", type=click.Choice(["qcow2", "raw"]), help="Of a disk image.")
@click.option("--cloud-init", is_flag=True, help="The disk reads a cloud-init seed.")
@click.option("--user", default="", metavar="NAME", help="Who logs in, with --cloud-init.")
@click.option(
    "--drivers",
    metavar="LIST",
    help=f"What the disk's kernel drives: {','.join(devices.STANDARD)}.",
)
@click.option("--description", default="", metavar="TEXT", help="One line for `image list`.")
@click.option("--ref", "reference", default="", metavar="NAME", help="Which of several images.")
@click.option("--replace", is_flag=True, help="Take the place of an image of this name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def import_image(  # noqa: PLR0913
    context: contexts.Context,
    *,
    name: str,
    file: str,
    format_: str | None,
    cloud_init: bool,
    user: str,
    drivers: str | None,
    description: str,
    reference: str,
    replace: bool,
    as_json: bool,
) -> None:
    """Give an image of your own a name that specs can use.

    FILE is a disk (say --format qcow2 or raw), or a container image: an OCI image layout, as a
    directory or tar, or what 'docker save' wrote. A container image becomes a machine that runs
    the container's program. The file is copied and never changed.
    """
    import os

    from vmctl.images import imports
    from vmctl.store.layout import Layout

    order = imports.Order(name=name, path=os.path.abspath(file), replace=replace)
    traits = imports.Traits(
        cloud_init=cloud_init,
        user=user,
        drivers=_drivers(drivers),
        description=description,
    )
    _refuse_mixed(order, format_, reference)
    made = _imported(context, Layout.default(), order, format_, traits, reference)
    if as_json:
        from vmctl.ui import json_out

        json_out.emit({"name": made.name, "digest": made.digest, "size": made.size})


def _drivers(words: str | None) -> frozenset[str]:
    if words is None:
        return frozenset(devices.STANDARD)
    chosen = frozenset(word.strip() for word in words.split(",") if word.strip())
    unknown = sorted(chosen - set(devices.STANDARD))
    if unknown or not chosen:
        from vmctl import errors

        raise errors.UsageError(
            f"There is no driver '{unknown[0] if unknown else words}'.",
            hint=f"There are: {', '.join(devices.STANDARD)}",
        )
    return chosen


def _refuse_mixed(order: Order, format_: str | None, reference: str) -> None:
    """Refuse options that do not fit what the file is."""
    import pathlib

    from vmctl import errors
    from vmctl.images import oci

    container = oci.recognised(pathlib.Path(order.path))
    if format_ is None and not container and pathlib.Path(order.path).exists():
        raise errors.UsageError(
            f"'{order.path}' is no container image; the format of a disk is never guessed.",
            hint="Say what it is: --format qcow2, or --format raw",
        )
    if format_ is not None and reference:
        raise errors.UsageError("--ref is for container images, --format for disks.")


def _imported(
    context: contexts.Context,
    layout: Layout,
    order: Order,
    format_: str | None,
    traits: Traits,
    reference: str,
) -> Image:
    from vmctl.deadline import Deadline
    from vmctl.images import imports
    from vmctl.lifecycle import schedule
    from vmctl.machine.model import DiskFormat
    from vmctl.ui import progress

    results: list[Image] = []

    def work(_: str, worker: Worker) -> None:
        with worker.step("import image", patient=True) as tell:

            def told(what: str, done: int, total: int) -> None:
                if worker.cancelled:
                    from vmctl import errors

                    raise errors.InterruptError("Interrupted.")
                tell(what, done, total)

            deadline = Deadline.after(_SECONDS)
            if format_ is None:
                results.append(imports.container(layout, order, reference, deadline, told))
            else:
                kind = DiskFormat(format_)
                results.append(imports.disk(layout, order, kind, traits, deadline, told))
            tell(results[0].digest[:12])

    progress.follow(schedule.carry_out([order.name], {}, work), quiet=context.quiet)
    (made,) = results
    return made
