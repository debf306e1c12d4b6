"""`vmctl snapshot`: points in a machine's life that it can go back to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from vmctl.cli import completion
from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from vmctl.lifecycle.snapshot_list import Listing
    from vmctl.store.snapshots import Kind

_Function = Callable[..., Any]


def _complete(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a machine's name, or a snapshot of the machines that are named already."""
    from click.shell_completion import CompletionItem

    from vmctl.store import snapshots as trees
    from vmctl.store.layout import Layout

    layout = Layout.default()
    given = ctx.params.get(parameter.name or "") or ()
    found = [tag for word in given for tag in trees.glance(layout.machine(word)).names]
    items = [CompletionItem(tag) for tag in dict.fromkeys(found) if tag.startswith(incomplete)]
    return items + completion.machines_and_specs(ctx, parameter, incomplete)


def _words(command: _Function) -> _Function:
    return click.argument(
        "words", nargs=-1, metavar="[SPEC|NAME]... SNAPSHOT", shell_complete=_complete
    )(command)


def _read(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the machines and the snapshot that words mean: the last one is the snapshot."""
    from vmctl import errors
    from vmctl.lifecycle import targets
    from vmctl.store import snapshots as trees

    if not words or targets.is_file(words[-1]):
        raise errors.UsageError(
            "The name of the snapshot is missing.",
            hint="Write it last: vmctl snapshot create NAME SNAPSHOT",
        )
    if not trees.NAME.fullmatch(words[-1]):
        raise errors.UsageError(
            f"'{words[-1]}' cannot name a snapshot.",
            hint="Use a-z, 0-9 and hyphens inside, 63 characters at most.",
        )
    return targets.names(words[:-1]), words[-1]


@click.group()
def snapshot() -> None:
    """Keep points in a machine's life and go back to them.

    Machines are named, or meant by a spec; none means ./vmctl.yaml.
    """


@snapshot.command()
@_words
@click.option("--memory", is_flag=True, help="Only with memory; else refuse.")
@click.option("--disks", is_flag=True, help="Without memory, also of a running machine.")
@click.option("--comment", metavar="TEXT", default="", help="What it is for.")
@contexts.options
def create(
    context: contexts.Context, words: tuple[str, ...], memory: bool, disks: bool, comment: str
) -> None:
    """Take a snapshot of machines, of all at the same moment.

    A running machine is kept with its memory where that is possible, else its disks alone, its file
    systems frozen by the guest agent. A stopped one is kept as it lies.
    """
    from vmctl.lifecycle import snapshots
    from vmctl.ui import progress

    names, name = _read(words)
    request = snapshots.Request(
        names=names, snapshot=name, uri=context.uri, wish=_wish(memory, disks), comment=comment
    )
    progress.follow(snapshots.create(request), quiet=context.quiet)


def _wish(memory: bool, disks: bool) -> Kind | None:
    from vmctl.store.snapshots import Kind

    if memory and disks:
        raise click.UsageError("--memory and --disks contradict each other.")
    return Kind.MEMORY if memory else Kind.DISKS if disks else None


@snapshot.command()
@_words
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--no-safety", is_flag=True, help="Do not keep what is there now.")
@click.option("--disks", is_flag=True, help="Restore no memory: the guest boots from the disks.")
@contexts.options
def restore(
    context: contexts.Context, words: tuple[str, ...], yes: bool, no_safety: bool, disks: bool
) -> None:
    """Put machines back to a snapshot, running or stopped as they were.

    What is there now is kept first, as snapshot before-restore-N.
    """
    from vmctl.lifecycle import restore as restoring
    from vmctl.lifecycle import snapshots
    from vmctl.ui import progress

    names, name = _read(words)
    lost = "what is there now is LOST" if no_safety else "what is there now is kept"
    _ask(f"Put {', '.join(names)} back to '{name}' ({lost})?", yes=yes)
    request = snapshots.Request(
        names=names, snapshot=name, uri=context.uri, safety=not no_safety, disks_only=disks
    )
    progress.follow(restoring.restore(request), quiet=context.quiet)


@snapshot.command()
@_words
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@contexts.options
def delete(context: contexts.Context, words: tuple[str, ...], yes: bool) -> None:
    """Delete a snapshot; everything else stays as it is."""
    from vmctl.lifecycle import snapshots
    from vmctl.ui import progress

    names, name = _read(words)
    _ask(f"Delete snapshot '{name}' of {', '.join(names)}?", yes=yes)
    request = snapshots.Request(names=names, snapshot=name, uri=context.uri)
    progress.follow(snapshots.delete(request), quiet=context.quiet)


def _ask(question: str, *, yes: bool) -> None:
    """Ask, and end the command with nothing done when the answer is no."""
    from vmctl.ui import ask

    if not ask.confirm(question, yes=yes):
        click.echo("Nothing was changed.", err=True)
        click.get_current_context().exit(1)


@snapshot.command()
@click.argument(
    "targets", nargs=-1, metavar="[SPEC|NAME]...", shell_complete=completion.machines_and_specs
)
@click.option("--keep", type=click.IntRange(min=0), default=0, help="How many of them stay.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@contexts.options
def prune(context: contexts.Context, targets: tuple[str, ...], keep: int, yes: bool) -> None:
    """Delete the snapshots that vmctl made by itself, before a restore."""
    from vmctl.lifecycle import snapshots
    from vmctl.lifecycle import targets as meaning
    from vmctl.ui import progress

    names = meaning.names(targets)
    found = snapshots.made_by_itself(names, keep)
    listing = "; ".join(f"{name}: {', '.join(own)}" for name, own in found.items() if own)
    if listing:
        _ask(f"Delete these snapshots ({listing})?", yes=yes)
    progress.follow(snapshots.prune(names, context.uri, keep), quiet=context.quiet)
    if not listing and not context.quiet:
        click.echo("Nothing to delete: vmctl made none by itself that need not stay.", err=True)


@snapshot.command("list")
@click.argument(
    "targets", nargs=-1, metavar="[SPEC|NAME]...", shell_complete=completion.machines_and_specs
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def list_snapshots(context: contexts.Context, targets: tuple[str, ...], as_json: bool) -> None:
    """Show snapshots as trees; * marks where a machine goes on from."""
    from vmctl.lifecycle import snapshot_list
    from vmctl.lifecycle import targets as meaning
    from vmctl.ui import json_out

    found = snapshot_list.listings(meaning.names(targets), context.uri)
    if as_json:
        json_out.emit([listing.as_dict() for listing in found])
        return
    from vmctl.ui import tree

    tree.show(found)


@snapshot.command()
@_words
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def show(context: contexts.Context, words: tuple[str, ...], as_json: bool) -> None:
    """Show one snapshot in full."""
    from vmctl.lifecycle import snapshot_list
    from vmctl.ui import json_out, tree

    names, name = _read(words)
    found = snapshot_list.listings(names, context.uri)
    entries = [(listing.machine, _entry(listing, name)) for listing in found]
    if as_json:
        json_out.emit([{"machine": machine, **entry.as_dict()} for machine, entry in entries])
        return
    for machine, entry in entries:
        tree.show_one(machine, entry)


def _entry(listing: Listing, name: str) -> Any:
    from vmctl import errors

    for entry in listing.entries:
        if entry.snapshot.name == name:
            return entry
    there = ", ".join(entry.snapshot.name for entry in listing.entries) or "none"
    raise errors.NotFoundError(
        f"Machine '{listing.machine}' has no snapshot '{name}'; there are: {there}.",
        hint=f"See them: vmctl snapshot list {listing.machine}",
    )
