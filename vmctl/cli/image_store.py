"""`vmctl image remove`, `prune` and `tree`: what the image store holds, and for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from vmctl import sizes
from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from vmctl.lifecycle.image_removal import Clearance, Removal


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME|DIGEST...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@contexts.options
def remove(context: contexts.Context, names: tuple[str, ...], yes: bool) -> None:
    """Remove images that no machine uses.

    A DIGEST may be shortened to its first digits (at least six). What comes from a recipe can be
    built or pulled again.
    """
    from vmctl.hypervisor import connection as connections
    from vmctl.lifecycle import image_removal
    from vmctl.store.layout import Layout
    from vmctl.ui import progress

    layout = Layout.default()
    chosen = image_removal.chosen(layout, names)
    with connections.opened(context.uri, layout) as connection:
        image_removal.refuse_used(layout, connection, chosen)
        if not _agreed([_described(each) for each in chosen], yes=yes):
            return
        freed = sum(image_removal.remove(layout, connection, each) for each in chosen)
    if not context.quiet:
        progress.write(f"Removed; {sizes.said(freed)} are free again.")


def _described(removal: Removal) -> str:

    if removal.keeps:
        return f"the name '{removal.word}' (the image stays: {', '.join(removal.keeps)})"
    return f"image '{removal.word}' ({removal.digest[:12]}, {sizes.said(removal.size)})"


def _agreed(what: Sequence[str], *, yes: bool) -> bool:
    """Ask before anything goes; ends the command, with nothing done, when the answer is no."""
    from vmctl.ui import ask

    if ask.confirm(f"Remove {', '.join(what)}?", yes=yes):
        return True
    click.echo("Nothing was removed.", err=True)
    raise click.exceptions.Exit(1)


@click.command()
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--cache", "with_cache", is_flag=True, help="Downloads too; they can be had again.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print what was removed as JSON.")
@contexts.options
def prune(
    context: contexts.Context, *, dry_run: bool, with_cache: bool, yes: bool, as_json: bool
) -> None:
    """Remove what nobody uses, and what killed commands left.

    Images that were replaced by newer ones, copies of files that changed or are gone, unfinished
    images. An image with a name stays, used or not: see 'vmctl image remove'.
    """
    from vmctl.hypervisor import connection as connections
    from vmctl.lifecycle import image_removal
    from vmctl.store.layout import Layout
    from vmctl.ui import json_out

    layout = Layout.default()
    with connections.opened(context.uri, layout) as connection:
        found = image_removal.prunable(layout, connection, with_cache=with_cache)
        if not as_json:
            _show(found)
        freed = 0
        if found and not dry_run and _agreed([f"{len(found)} things"], yes=yes):
            freed = sum(image_removal.clear(layout, connection, each) for each in found)
    if as_json:
        total = sum(each.size for each in found)
        json_out.emit({"found": found, "size": total, "freed": freed})
    elif not context.quiet:
        _say(found, freed, dry_run=dry_run)


def _show(found: Sequence[Clearance]) -> None:
    from vmctl.ui import table

    rows = [(each.what, each.name[:40], sizes.said(each.size)) for each in found]
    table.show(("what", "name", "size"), rows, right=("size",), empty="There is nothing to remove.")


def _say(found: Sequence[Clearance], freed: int, *, dry_run: bool) -> None:
    from vmctl.ui import progress

    if dry_run and found:
        total = sum(each.size for each in found)
        progress.write(f"{sizes.said(total)} would be free. Nothing was removed.")
    elif found:
        progress.write(f"Removed; {sizes.said(freed)} ({freed} bytes) are free again.")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def tree(context: contexts.Context, as_json: bool) -> None:
    """Show images with the machines on them, and what each takes."""
    from vmctl.lifecycle import image_tree, image_users
    from vmctl.store.layout import Layout
    from vmctl.ui import branches, json_out

    layout = Layout.default()
    found = image_tree.grown(layout, image_users.known(layout, context.uri))
    if as_json:
        json_out.emit(found)
    else:
        branches.show(found)
