"""`vmctl clone` and `vmctl commit`: a machine, or an image, of a machine's disks."""

from __future__ import annotations

import click

from vmctl.cli import completion
from vmctl.cli import context as contexts


@click.command()
@click.argument("source", shell_complete=completion.machine_names)
@click.argument("new")
@click.option("--snapshot", default="", metavar="NAME", help="The disks as they were then.")
@contexts.options
def clone(context: contexts.Context, source: str, new: str, snapshot: str) -> None:
    """Make the machine NEW of a stopped machine's disks; both share their image.

    NEW has its own UUID, MAC addresses, ssh keys and cloud-init seed, and is not started.
    """
    from vmctl import errors
    from vmctl.lifecycle import clone as cloning
    from vmctl.store import snapshots as trees
    from vmctl.ui import progress

    if not trees.NAME.fullmatch(new) or new.isdigit():
        raise errors.UsageError(
            f"'{new}' cannot name a machine.",
            hint="Use a-z, 0-9 and hyphens inside, at least one letter, 63 characters at most.",
        )
    request = cloning.Request(source=source, name=new, uri=context.uri, snapshot=snapshot)
    progress.follow(cloning.clone(request), quiet=context.quiet)


@click.command()
@click.argument("name", shell_complete=completion.machine_names)
@click.argument("image")
@click.option("--snapshot", default="", metavar="NAME", help="The disk as it was then.")
@click.option("--replace", is_flag=True, help="Take the place of an image of this name.")
@contexts.options
def commit(context: contexts.Context, name: str, image: str, snapshot: str, replace: bool) -> None:
    """Make the image IMAGE of a stopped machine's system disk, for specs to name.

    It holds all that the guest holds, its host keys and passwords included.
    """
    from vmctl.lifecycle import clone as cloning
    from vmctl.ui import progress

    request = cloning.Request(
        source=name, name=image, uri=context.uri, snapshot=snapshot, replace=replace
    )
    progress.follow(cloning.commit(request), quiet=context.quiet)
