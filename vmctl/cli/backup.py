"""`vmctl backup`: copies of machines' disks that lie beside them."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from vmctl.cli import completion
from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_Function = Callable[..., Any]


def _complete(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a backup of the machine that is named already."""
    from click.shell_completion import CompletionItem

    from vmctl.store import backups
    from vmctl.store.layout import Layout

    shelf = backups.shelf(Layout.default(), ctx.params.get("to"), str(ctx.params.get("name", "")))
    there = [backups.LATEST, *shelf.names]
    return [CompletionItem(name) for name in there if name.startswith(incomplete)]


def _elsewhere(command: _Function) -> _Function:
    return click.option(
        "--to",
        type=click.Path(path_type=pathlib.Path),
        metavar="DIR",
        help="Where backups lie; the store otherwise.",
    )(command)


def _machine(command: _Function) -> _Function:
    return click.argument("name", shell_complete=completion.machine_names)(command)


def _backup(command: _Function) -> _Function:
    return click.argument("backup", shell_complete=_complete)(command)


@click.group()
def backup() -> None:
    """Copy machines' disks while they run, whole or what changed, and make machines of copies.

    A backup is named after its moment (UTC); `latest` is the newest one.
    """


@backup.command()
@click.argument(
    "targets", nargs=-1, metavar="[SPEC|NAME]...", shell_complete=completion.machines_and_specs
)
@click.option("--full", is_flag=True, help="All of the disks, not only what changed.")
@click.option("--comment", metavar="TEXT", default="", help="What it is for.")
@_elsewhere
@contexts.options
def create(
    context: contexts.Context,
    targets: tuple[str, ...],
    full: bool,
    comment: str,
    to: pathlib.Path | None,
) -> None:
    """Back machines up; they go on meanwhile.

    The first backup is a full one, those after it hold what changed since. The file systems are
    frozen for the moment of the backup where the guest agent answers.
    """
    from vmctl.lifecycle import backup as making
    from vmctl.lifecycle import targets as meaning
    from vmctl.ui import progress

    names = [_checked(name) for name in meaning.names(targets)]
    request = making.Request(
        names=names, uri=context.uri, to=_absolute(to), full=full, comment=comment
    )
    progress.follow(making.create(request), quiet=context.quiet)


def _absolute(to: pathlib.Path | None) -> pathlib.Path | None:
    return to.absolute() if to is not None else None


def _checked(name: str) -> str:
    """Return a machine's name, which is part of a path. Raises UsageError."""
    from vmctl import errors
    from vmctl.store import snapshots as trees

    if not trees.NAME.fullmatch(name):
        raise errors.UsageError(
            f"'{name}' cannot name a machine.",
            hint="Use a-z, 0-9 and hyphens inside, 63 characters at most.",
        )
    return name


@backup.command("list")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completion.machine_names)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_elsewhere
@contexts.options
def list_backups(
    _context: contexts.Context, names: tuple[str, ...], as_json: bool, to: pathlib.Path | None
) -> None:
    """Show backups as trees: each lies below the one that it needs.

    Without a name, those of all machines.
    """
    from vmctl.lifecycle import backup_list
    from vmctl.ui import json_out

    found = backup_list.listings([_checked(name) for name in names], _absolute(to))
    if as_json:
        json_out.emit([listing.as_dict() for listing in found])
        return
    from vmctl.ui import backups

    backups.show(found)


@backup.command()
@_machine
@click.argument("backup", required=False, default="", shell_complete=_complete)
@_elsewhere
@contexts.options
def verify(context: contexts.Context, name: str, backup: str, to: pathlib.Path | None) -> None:
    """Read a backup with all that it needs, and say what is damaged.

    Without BACKUP, all of the machine's.
    """
    from vmctl.lifecycle import backup_verify
    from vmctl.ui import progress

    happenings = backup_verify.run(_checked(name), backup, _absolute(to))
    progress.follow(happenings, quiet=context.quiet)


@backup.command()
@_machine
@_backup
@click.argument("new")
@_elsewhere
@contexts.options
def restore(
    context: contexts.Context, name: str, backup: str, new: str, to: pathlib.Path | None
) -> None:
    """Make the machine NEW with the disks of a backup.

    NEW has its own UUID, MAC addresses, ssh keys and cloud-init seed, and is not started. What is
    on the disks is what was there, byte for byte.
    """
    from vmctl.lifecycle import backup_restore
    from vmctl.ui import progress

    if new.isdigit():
        raise click.UsageError(f"'{new}' cannot name a machine: it needs a letter.")
    request = backup_restore.Request(
        name=_checked(name), backup=backup, new=_checked(new), uri=context.uri, to=_absolute(to)
    )
    progress.follow(backup_restore.restore(request), quiet=context.quiet)


@backup.command()
@_machine
@_backup
@_elsewhere
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@contexts.options
def delete(
    context: contexts.Context, name: str, backup: str, to: pathlib.Path | None, yes: bool
) -> None:
    """Delete a backup; later ones keep what they need of it."""
    from vmctl.lifecycle import backup_removal
    from vmctl.ui import progress

    meant = backup_removal.meant(_checked(name), backup, _absolute(to))
    _ask(f"Delete backup '{meant}' of {name}?", yes=yes)
    happenings = backup_removal.delete(name, meant, _absolute(to))
    progress.follow(happenings, quiet=context.quiet)


@backup.command()
@_machine
@click.option("--keep", type=click.IntRange(min=1), required=True, help="How many stay.")
@_elsewhere
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@contexts.options
def prune(
    context: contexts.Context, name: str, keep: int, to: pathlib.Path | None, yes: bool
) -> None:
    """Delete all but the newest backups; those keep what they need."""
    from vmctl.lifecycle import backup_removal
    from vmctl.ui import progress

    _ask(f"Delete all backups of {name} but the last {keep}?", yes=yes)
    happenings = backup_removal.prune(_checked(name), keep, _absolute(to))
    progress.follow(happenings, quiet=context.quiet)


def _ask(question: str, *, yes: bool) -> None:
    """Ask, and end the command with nothing done when the answer is no."""
    from vmctl.ui import ask

    if not ask.confirm(question, yes=yes):
        click.echo("Nothing was changed.", err=True)
        click.get_current_context().exit(1)
