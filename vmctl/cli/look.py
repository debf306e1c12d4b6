"""Commands that only look: ps, status, logs, console, render."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import time
from typing import TYPE_CHECKING

import click

from vmctl.cli import completion
from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from vmctl.lifecycle.roster import Row
    from vmctl.store.layout import Layout

_FOLLOW_POLL = 0.1


@click.command()
@click.argument("spec", required=False, metavar="[SPEC]")
@click.option("-a", "--all", "everything", is_flag=True, help="Machines of every project.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def ps(context: contexts.Context, spec: str | None, everything: bool, as_json: bool) -> None:
    """List machines: of a spec's project, or all.

    Without SPEC: the project of ./vmctl.yaml where there is one, else all.
    """
    from vmctl.hypervisor import connection as connections
    from vmctl.lifecycle import roster
    from vmctl.store.layout import Layout

    layout = Layout.default()
    project = "" if everything else _project(spec, layout)
    with connections.opened(context.uri, layout) as connection:
        rows = list(roster.rows(connection, layout, project=project))
    if as_json:
        from vmctl.ui import json_out

        json_out.emit(rows)
    else:
        _show(rows)


def _project(spec: str | None, layout: Layout) -> str:
    """Return the project to list, or nothing for all."""
    if spec is None and not pathlib.Path("vmctl.yaml").exists():
        return ""
    from vmctl.lifecycle import roster

    known = roster.project_of(layout, spec or "vmctl.yaml")
    if known:
        return known
    from vmctl.lifecycle import targets
    from vmctl.spec import load

    return load.load(targets.spec_path(spec), allow_outside=True).project


def _show(rows: list[Row]) -> None:
    from vmctl import sizes
    from vmctl.ui import table

    table.show(
        ("name", "project", "state", "mode", "image", "cpus", "memory"),
        [
            (
                row.name,
                row.project,
                f"{row.state}{'' if row.ready or row.state != 'running' else ' (not ready)'}",
                row.mode,
                row.image,
                row.cpus,
                sizes.text(row.memory),
            )
            for row in rows
        ],
        right=("cpus", "memory"),
        state="state",
        empty="No machines. Make one: vmctl init && vmctl up",
    )


@click.command()
@click.argument("name", shell_complete=completion.machine_names)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def status(context: contexts.Context, name: str, as_json: bool) -> None:
    """Show one machine: state, what runs it, addresses, forwarded ports, limits, drift."""
    from vmctl.hypervisor import connection as connections
    from vmctl.lifecycle import listing
    from vmctl.store.layout import Layout
    from vmctl.ui import json_out, results

    layout = Layout.default()
    with connections.opened(context.uri, layout) as connection:
        details = listing.details(connection, layout, name, closely=True)
    if as_json:
        json_out.emit(details.as_dict())
    else:
        results.show_one(details)


@click.command()
@click.argument("name", shell_complete=completion.machine_names)
@click.option("-f", "--follow", is_flag=True, help="Go on as the guest writes; Ctrl-C ends it.")
@click.option("-n", "--lines", type=click.IntRange(min=0), help="Only the last lines; 0 for none.")
@click.option("--since-boot", is_flag=True, help="Only what came since the last start.")
@contexts.options
def logs(
    _context: contexts.Context, name: str, follow: bool, lines: int | None, since_boot: bool
) -> None:
    """Show what a machine wrote to its serial console.

    Following goes on over restarts, and ends when the machine is removed.
    """
    from vmctl import errors
    from vmctl.guest import console_log
    from vmctl.store import records
    from vmctl.store.layout import Layout
    from vmctl.ui.stream import Writer

    place = Layout.default().machine(name)
    path = place.console_log
    if not path.exists():
        raise errors.NotFoundError(
            f"There is no console log of a machine '{name}'.", hint="See all: vmctl ps --all"
        )
    if not os.access(path, os.R_OK):
        raise errors.HostError(f"You may not read '{path}'.", hint=f"sudo vmctl logs {name}")
    record = records.read(place) if since_boot else None
    put = Writer(sys.stdout, lines=True)
    follower = console_log.Follower(path)
    with contextlib.suppress(BrokenPipeError):  # whoever reads has seen enough
        put(follower.begin(since=record.boot_offset if record else 0, lines=lines))
        while follow and place.directory.exists():
            added = follower.read()
            if added:
                put(added)
            else:
                time.sleep(_FOLLOW_POLL)
        if not put.at_line_start:
            put(b"\n")


@click.command()
@click.argument("name", shell_complete=completion.machine_names)
@click.option("--force", is_flag=True, help="Take the console from whoever has it.")
@contexts.options
def console(context: contexts.Context, name: str, force: bool) -> None:
    """Connect to a machine's serial console; Ctrl-] leaves it."""
    from vmctl.guest import console as consoles
    from vmctl.hypervisor import connection as connections
    from vmctl.hypervisor.console import Stream
    from vmctl.store.layout import Layout

    with connections.opened(context.uri, Layout.default(), events=True) as connection:
        stream = Stream(connection, name, force=force)
        if not context.quiet:
            click.echo(f"Connected to '{name}'; Ctrl-] leaves, Enter shows a prompt.", err=True)
        try:
            consoles.attach(stream, sys.stdin.fileno(), sys.stdout.fileno())
        finally:
            stream.close()
            click.echo(err=True)


@click.command()
@click.argument("spec", required=False, metavar="[SPEC]")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key of the spec.")
@click.option("--machine", "only", metavar="NAME", help="Only this machine of the spec.")
@click.option("--explain", is_flag=True, help="Say for each element why it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the resolved machines as JSON.")
@click.option("--allow-outside", is_flag=True, help="Allow files outside the spec's directory.")
@contexts.options
def render(
    context: contexts.Context,
    spec: str | None,
    sets: tuple[str, ...],
    only: str | None,
    explain: bool,
    as_json: bool,
    allow_outside: bool,
) -> None:
    """Print the domain XML of a spec; changes nothing."""
    from vmctl import errors
    from vmctl.lifecycle import targets, workspace
    from vmctl.machine.xml import domain
    from vmctl.ui import json_out, terminal

    path = targets.spec_path(spec)
    space = workspace.open_spec(path, uri=context.uri, sets=sets, allow_outside=allow_outside)
    machines = [machine for machine in space.machines if only in (None, machine.name)]
    if not machines:
        raise errors.NotFoundError(f"Spec '{path}' has no machine '{only}'.")
    for machine in machines:
        if machine.image is not None and not machine.image.present and not context.quiet:
            click.echo(
                f"Image '{machine.image.name}' is not built yet; its paths are placeholders.",
                err=True,
            )
    if as_json:
        json_out.emit([machine.as_dict() for machine in machines])
        return
    for machine in machines:
        written = domain.write(machine)
        terminal.put(written.explained() if explain else written.text())
