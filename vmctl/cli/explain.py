"""`vmctl explain`: what a mode is made of, from the spec to what the guest sees."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING

import click

from vmctl import errors
from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from vmctl.machine.model import Machine


@click.command()
@click.argument("what", metavar="MODE|SPEC")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def explain(context: contexts.Context, what: str, as_json: bool) -> None:
    """Tell what a mode is made of: spec, domain XML, QEMU's argument, what the guest sees.

    MODE is full, hardware, paravirt or tcg-virtio; SPEC is a file, whose machine decides. Starts
    nothing. A mode that cannot run here is explained all the same.
    """
    from vmctl.hypervisor import connection as connections
    from vmctl.hypervisor import native
    from vmctl.lab import explain as explaining
    from vmctl.machine.xml import domain
    from vmctl.store.layout import Layout

    machine = _machine(what, context)
    written = domain.write(machine)
    argv: list[str] = []
    try:
        with connections.opened(context.uri, Layout.default()) as connection:
            argv = native.argv(connection, written.text())
    except errors.HostError:
        if not context.quiet:
            click.echo("Libvirt cannot be reached: QEMU's arguments are left out.", err=True)
    stops = explaining.tour(machine, written, argv)
    if as_json:
        from vmctl.ui import json_out

        json_out.emit(
            {
                "mode": machine.mode,
                "stops": stops,
                "holding": explaining.HOLDING,
                "controllers": [dataclasses.asdict(each) for each in explaining.CONTROLLERS],
            }
        )
        return
    from vmctl.ui import tour

    tour.show(machine, stops)


def _machine(what: str, context: contexts.Context) -> Machine:
    """Return the machine that is explained: of a spec, or a small one in a mode."""
    from vmctl import shipped
    from vmctl.lab import imagine
    from vmctl.lifecycle import targets, workspace
    from vmctl.machine.model import Mode

    if targets.is_file(what):
        space = workspace.open_spec(pathlib.Path(what), uri=context.uri)
        return space.machines[0]
    if what not in list(Mode):
        raise errors.UsageError(
            f"There is no mode '{what}' to explain.",
            hint=f"There are: {', '.join(Mode)}; or name a spec file.",
        )
    path = shipped.directory("templates") / "lab.yaml"
    return imagine.machine(path, Mode(what), uri=context.uri)
