"""`vmctl clone` and `vmctl commit`: a machine, or an image, of a machine's disks."""

from __future__ import annotations

import click

from vmctl.cli import completion
from vmctl.cli import context as contexts

_KEEP_IDENTITY = "Leave the source's keys and ids on the disk."


@click.command()
@click.argument("source", shell_complete=completion.machine_names)
@click.argument("new")
@click.option("--snapshot", default="", metavar="NAME", help="The disks as they were then.")
@click.option("--full", is_flag=True, help="Copy the image as well: NEW needs none below it.")
@click.option("--keep-identity", is_flag=True, help=_KEEP_IDENTITY)
@contexts.options
def clone(
    context: contexts.Context,
    source: str,
    new: str,
    snapshot: str,
    full: bool,
    keep_identity: bool,
) -> None:
    """Make the machine NEW of a stopped machine's disks; both share their image.

    NEW has its own UUID, MAC addresses, ssh keys and cloud-init seed, and is not started. Host
    keys, machine-id, leases and the source's login key are taken out of its disks.
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
    request = cloning.Request(
        source=source,
        name=new,
        uri=context.uri,
        snapshot=snapshot,
        full=full,
        keep_identity=keep_identity,
    )
    progress.follow(cloning.clone(request), quiet=context.quiet)


@click.command()
@click.argument("name", shell_complete=completion.machine_names)
@click.argument("image")
@click.option("--snapshot", default="", metavar="NAME", help="The disk as it was then.")
@click.option("--replace", is_flag=True, help="Take the place of an image of this name.")
@click.option("--keep-identity", is_flag=True, help=_KEEP_IDENTITY)
@contexts.options
def commit(
    context: contexts.Context,
    name: str,
    image: str,
    snapshot: str,
    replace: bool,
    keep_identity: bool,
) -> None:
    """Make the image IMAGE of a stopped machine's system disk, for specs to name.

    Host keys, machine-id, leases and the machine's login key are taken out; all else that the
    guest holds is in it, passwords included.
    """
    from vmctl.lifecycle import clone as cloning
    from vmctl.ui import progress

    request = cloning.Request(
        source=name,
        name=image,
        uri=context.uri,
        snapshot=snapshot,
        replace=replace,
        keep_identity=keep_identity,
    )
    progress.follow(cloning.commit(request), quiet=context.quiet)
