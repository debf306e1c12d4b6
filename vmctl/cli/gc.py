"""What killed commands left behind: gc."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from vmctl.cli import completion
from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from vmctl.lifecycle.leftovers import Leftover


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completion.machine_names)
@click.option("-n", "--dry-run", is_flag=True, help="Only show what there is.")
@click.option("--data", is_flag=True, help="Clear what may hold data as well.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print what was left as JSON.")
@contexts.options
def gc(
    context: contexts.Context,
    *,
    names: tuple[str, ...],
    dry_run: bool,
    data: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Find what killed commands and other hands left, and clear it.

    Half-made and half-removed machines, domains without files, networks that nobody uses, the rest
    of a comparison. What may hold data of yours (machines whose domain was removed by other hands,
    disks that 'down' kept) is shown, and cleared only with --data. 'up' and 'down' clear what was
    left of their own machines, 'compare' what was left of others.
    """
    from vmctl.hypervisor import connection as connections
    from vmctl.lab import leftovers as comparisons
    from vmctl.lifecycle import leftovers
    from vmctl.lifecycle.steps import Site
    from vmctl.store.layout import Layout
    from vmctl.ui import json_out, progress

    layout = Layout.default()
    with connections.opened(context.uri, layout) as connection:
        found = [
            *leftovers.find(connection, layout, names),
            *comparisons.find(connection, layout, names),
        ]
        chosen = [] if dry_run else [one for one in found if data or not one.data]
        if as_json:
            json_out.emit(found)
        else:
            _show(found)
        if dry_run:
            return
        if chosen and _agreed(chosen, yes=yes):
            site = Site(connection, layout)
            compared = [one for one in chosen if one.kind is leftovers.Kind.COMPARISON]
            others = [one for one in chosen if one not in compared]
            for events in (
                leftovers.clear(site, others),
                comparisons.clear(connection, layout, compared),
            ):
                progress.follow(events, quiet=context.quiet)
    _say_rest(len(found) - len(chosen))


def _show(found: Sequence[Leftover]) -> None:
    from vmctl import sizes
    from vmctl.ui import table

    table.show(
        ("what", "name", "size", "data", "why"),
        [
            (one.kind, one.name, sizes.short(one.size), "yes" if one.data else "no", one.why)
            for one in found
        ],
        right=("size",),
        empty="Nothing was left over.",
    )


def _agreed(chosen: Sequence[Leftover], *, yes: bool) -> bool:
    from vmctl.ui import ask

    names = ", ".join(one.name for one in chosen)
    risk = " Their data is lost." if any(one.data for one in chosen) else ""
    if not ask.confirm(f"Clear what was left of {names}?{risk}", yes=yes):
        click.echo("Nothing was cleared.", err=True)
        click.get_current_context().exit(1)
    return True


def _say_rest(left: int) -> None:
    if left:
        click.echo(f"Left alone, because it may hold data: {left} (see --data).", err=True)
