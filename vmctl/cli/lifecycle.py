"""Commands that change what runs: up, down, start, stop, restart, pause, resume, wait."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from vmctl.cli import completion
from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from vmctl.lifecycle.events import Event
    from vmctl.lifecycle.provision import Provision
    from vmctl.machine.plan import MachinePlan, Plan

_Function = Callable[..., Any]


def _targets(command: _Function) -> _Function:
    return click.argument(
        "targets", nargs=-1, metavar="[SPEC|NAME]...", shell_complete=completion.machines_and_specs
    )(command)


def seconds(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    """Read a duration as a spec has it: 90s, 5m."""
    if value is None:
        return None
    from vmctl.spec import scalars

    try:
        return scalars.duration(value)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


def _timeout(command: _Function) -> _Function:
    return click.option(
        "--timeout", metavar="DURATION", callback=seconds, help="How long to wait: 90s, 5m."
    )(command)


def _follow(events: Iterable[Event], context: contexts.Context) -> None:
    from vmctl.ui import progress

    progress.follow(events, quiet=context.quiet)


@click.command()
@click.argument("spec", required=False, metavar="[SPEC]")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key of the spec.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result (or the plan) as JSON.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the machines are ready.")
@click.option("--provision", is_flag=True, help="Carry out all provision steps again.")
@click.option("--no-provision", is_flag=True, help="Carry out no provision steps.")
@click.option("--remove-orphans", is_flag=True, help="Remove machines the spec no longer names.")
@click.option("--take-over", is_flag=True, help="Overwrite what other hands (virsh) changed.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before machines are removed.")
@click.option("--allow-outside", is_flag=True, help="Allow files outside the spec's directory.")
@contexts.options
def up(  # noqa: PLR0913
    context: contexts.Context,
    *,
    spec: str | None,
    sets: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    no_wait: bool,
    provision: bool,
    no_provision: bool,
    remove_orphans: bool,
    take_over: bool,
    yes: bool,
    allow_outside: bool,
) -> None:
    """Make machines run as their spec says.

    Does what is missing and nothing else: running it again is fine. Without SPEC, ./vmctl.yaml.
    """
    from vmctl.lifecycle import targets
    from vmctl.lifecycle import up as upping

    request = upping.Request(
        path=targets.spec_path(spec),
        uri=context.uri,
        sets=sets,
        allow_outside=allow_outside,
        remove_orphans=remove_orphans,
        take_over=take_over,
        wait=not no_wait,
        provision=_which_steps(provision, no_provision, waits=not no_wait),
    )
    if dry_run:
        _show_plan(upping.planned(request), as_json=as_json)
        return
    if remove_orphans:
        _ask_to_remove(upping.planned(request).orphans, yes=yes)
    _follow(upping.run(request), context)
    _show_result(context, request.path, sets, as_json=as_json)


def _which_steps(every: bool, none: bool, *, waits: bool) -> Provision:
    from vmctl.lifecycle.provision import Provision

    if every and none:
        raise click.UsageError("--provision and --no-provision exclude each other.")
    if every and not waits:
        raise click.UsageError("--provision needs to wait: leave out --no-wait.")
    return Provision.ALL if every else Provision.NONE if none else Provision.MISSING


def _ask_to_remove(names: Sequence[str], *, yes: bool, also: str = "") -> None:
    """Ask before machines go; ends the command, with nothing done, when the answer is no."""
    from vmctl.ui import ask

    if names and not ask.confirm(f"Remove {', '.join(names)}, disks included{also}?", yes=yes):
        click.echo("Nothing was removed.", err=True)
        click.get_current_context().exit(1)


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    from vmctl.ui import json_out, table

    if as_json:
        json_out.emit(
            {
                "machines": [item.as_dict() for item in plan.machines],
                "orphans": list(plan.orphans),
            }
        )
        return
    rows: list[tuple[str, ...]] = [
        (
            item.machine.name,
            item.machine.mode,
            item.observed.state,
            ", ".join(item.changes) or "nothing",
            "; ".join(_notes(item)),
        )
        for item in plan.machines
    ]
    rows += [(name, "", "", "not in the spec any more", "") for name in plan.orphans]
    table.show(("machine", "mode", "state", "to do", "notes"), rows, state="state")


def _notes(item: MachinePlan) -> Iterator[str]:
    for change in (*item.live, *item.waiting):
        yield f"{change} ({change.effect})"
    yield from (f"{drift} (taken over)" for drift in item.overwritten)
    yield from (f"{drift} (left as it is)" for drift in item.drift)


def _show_result(
    context: contexts.Context, path: pathlib.Path, sets: tuple[str, ...], *, as_json: bool
) -> None:
    """Say how to get in."""
    from vmctl.hypervisor import connection as connections
    from vmctl.lifecycle import listing, targets
    from vmctl.store.layout import Layout
    from vmctl.ui import json_out, results

    layout = Layout.default()
    with connections.opened(context.uri, layout) as connection:
        names = targets.in_spec(path, sets)
        found = [listing.details(connection, layout, name) for name in names]
    if as_json:
        json_out.emit([details.as_dict() for details in found])
    elif not context.quiet:
        results.show(found)


@click.command()
@_targets
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--delete-kept", is_flag=True, help="Delete disks with keep: true as well.")
@contexts.options
def down(context: contexts.Context, targets: tuple[str, ...], yes: bool, delete_kept: bool) -> None:
    """Remove machines with their disks and all else that vmctl made for them.

    Disks with keep: true stay, and so does every image. Without SPEC or NAME, ./vmctl.yaml.
    """
    from vmctl.lifecycle import power
    from vmctl.lifecycle import targets as meaning

    asked = power.Request(names=meaning.names(targets), uri=context.uri)
    names = power.existing(asked, missing_ok=_only_specs(targets))
    kept = " (those with keep: true too)" if delete_kept else " (not those with keep: true)"
    _ask_to_remove(names, yes=yes, also=kept)
    request = power.Request(names=names, uri=context.uri)
    _follow(power.down(request, with_kept=delete_kept), context)


def _only_specs(words: tuple[str, ...]) -> bool:
    """Tell whether all words are specs: what is gone already is then as it should be."""
    from vmctl.lifecycle import targets as meaning

    return all(meaning.is_file(word) for word in words)


@click.command()
@_targets
@_timeout
@click.option("--no-wait", is_flag=True, help="Do not wait until the machines are ready.")
@contexts.options
def start(
    context: contexts.Context, targets: tuple[str, ...], timeout: float | None, no_wait: bool
) -> None:
    """Start machines as they are defined."""
    from vmctl.lifecycle import power

    _follow(power.start(_request(context, targets, timeout=timeout, wait=not no_wait)), context)


@click.command()
@_targets
@_timeout
@click.option("--force", is_flag=True, help="Pull the plug.")
@contexts.options
def stop(
    context: contexts.Context, targets: tuple[str, ...], timeout: float | None, force: bool
) -> None:
    """Shut machines down through the power button; everything is kept.

    A guest that does not follow goes on running (status 6); --force pulls the plug.
    """
    from vmctl.lifecycle import power

    how = {"timeout": timeout, "force": force, "missing_ok": _only_specs(targets)}
    _follow(power.stop(_request(context, targets, **how)), context)


@click.command()
@_targets
@_timeout
@click.option("--force", is_flag=True, help="Pull the plug instead of the power button.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the machines are ready.")
@contexts.options
def restart(
    context: contexts.Context,
    targets: tuple[str, ...],
    timeout: float | None,
    force: bool,
    no_wait: bool,
) -> None:
    """Stop machines and start them again."""
    from vmctl.lifecycle import power

    request = _request(context, targets, timeout=timeout, force=force, wait=not no_wait)
    _follow(power.restart(request), context)


@click.command()
@_targets
@contexts.options
def pause(context: contexts.Context, targets: tuple[str, ...]) -> None:
    """Stop the guests' processors; memory and the QEMU process stay.

    This is QEMU's stop, not the cgroup freezer: timers of the host go on, connections may time out.
    """
    from vmctl.lifecycle import power

    _follow(power.pause(_request(context, targets)), context)


@click.command()
@_targets
@contexts.options
def resume(context: contexts.Context, targets: tuple[str, ...]) -> None:
    """Let paused machines go on."""
    from vmctl.lifecycle import power

    _follow(power.resume(_request(context, targets)), context)


@click.command()
@_targets
@_timeout
@contexts.options
def wait(context: contexts.Context, targets: tuple[str, ...], timeout: float | None) -> None:
    """Wait until machines are ready (status 6 when they are not in time)."""
    from vmctl.lifecycle import power

    _follow(power.wait(_request(context, targets, timeout=timeout)), context)


def _request(context: contexts.Context, words: tuple[str, ...], **how: Any) -> Any:
    from vmctl.lifecycle import power, targets

    return power.Request(names=targets.names(words), uri=context.uri, **how)
