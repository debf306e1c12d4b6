"""`vmctl save`: memory to disk, until `start`."""

from __future__ import annotations

import click

from vmctl.cli import completion
from vmctl.cli import context as contexts


@click.command()
@click.argument(
    "targets", nargs=-1, metavar="[SPEC|NAME]...", shell_complete=completion.machines_and_specs
)
@contexts.options
def save(context: contexts.Context, targets: tuple[str, ...]) -> None:
    """Write the memory of machines to disk and end them; `start` lets them go on from there.

    'stop --force' throws the saved memory away: the machine then boots.
    """
    from vmctl.lifecycle import save as saving
    from vmctl.lifecycle import targets as meaning
    from vmctl.ui import progress

    progress.follow(saving.save(meaning.names(targets), context.uri), quiet=context.quiet)
