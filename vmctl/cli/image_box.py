"""`vmctl image box`: an image as a box for Vagrant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from vmctl.lifecycle.schedule import Worker

_SECONDS = 1800.0
"""The image may have to be built first, from packages over a slow line."""


@click.command()
@click.argument("name")
@click.argument("file", type=click.Path())
@contexts.options
def box(context: contexts.Context, *, name: str, file: str) -> None:
    """Write an image as a box for Vagrant's libvirt provider.

    The image is built first where it is absent. Then: vagrant box add --name NAME FILE. 'lab-host'
    is a box with QEMU, libvirt and vmctl in it, which needs no internet.
    """
    import os
    import pathlib

    from vmctl import errors
    from vmctl.deadline import Deadline
    from vmctl.images import build
    from vmctl.lab import box as boxes
    from vmctl.lifecycle import schedule
    from vmctl.store import home
    from vmctl.store.layout import Layout
    from vmctl.ui import progress

    target = pathlib.Path(os.path.abspath(file))
    if not target.parent.is_dir():
        raise errors.UsageError(f"The directory of '{file}' is not there.")
    layout = Layout.default()
    home.opened(layout)

    def work(_: str, worker: Worker) -> None:
        with worker.step("write box", patient=True) as tell:
            deadline = Deadline.after(_SECONDS)
            image = build.ensure(layout, name, deadline, tell)
            tell("writing")
            boxes.write(image, target, deadline)

    progress.follow(schedule.carry_out([name], {}, work), quiet=context.quiet)
