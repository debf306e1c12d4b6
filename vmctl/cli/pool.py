"""`vmctl pool`: machines that are kept warm for jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from vmctl import errors
from vmctl.cli import context as contexts
from vmctl.cli.lifecycle import seconds

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_READY_SECONDS = 1800.0
_DRAIN_SECONDS = 3600.0


def names(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a pool's name (for `shell_complete=`)."""
    import os

    from click.shell_completion import CompletionItem

    from vmctl.store.layout import Layout

    try:
        found = sorted(os.listdir(Layout.default().pools))
    except (OSError, RuntimeError):
        return []
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def _size(_context: click.Context, _option: click.Parameter, value: str | None) -> int:
    """Read a size as a spec has it: 8GiB."""
    if value is None:
        return 0
    from vmctl.spec import scalars

    try:
        return scalars.size(value)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


@click.group()
def pool() -> None:
    """Keep machines warm, so that `vmctl run --pool NAME` has one at once.

    Each slot of a pool is a machine that was booted once. A job gets one as it was then, with an
    identity of its own; when it ends, however it ends, the slot is reset.
    """


def _bounds(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `create` the options that say how much of the host the pool may take."""
    for option in (
        click.option(
            "--memory-limit",
            metavar="SIZE",
            callback=_size,
            help="Most memory for all slots: 8GiB.",
        ),
        click.option(
            "--refills",
            type=click.IntRange(1, 16),
            default=None,
            help="How many slots are made or reset at a time; default: half of the processors.",
        ),
        click.option(
            "--slots", type=click.IntRange(0, 200), default=2, show_default=True, help="How many."
        ),
    ):
        command = option(command)
    return command


@pool.command()
@click.argument("name")
@click.argument("source", metavar="SPEC|IMAGE")
@_bounds
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a key of the spec.")
@click.option(
    "--allow-tcg", is_flag=True, help="Accept TCG, which does not hold hostile jobs back."
)
@click.option("--allow-outside", is_flag=True, help="Allow files outside the spec's directory.")
@click.option("--no-start", is_flag=True, help="Start no supervisor; systemd does, say.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the slots are ready.")
@contexts.options
def create(
    context: contexts.Context,
    /,
    *,
    no_start: bool,
    no_wait: bool,
    refills: int | None,
    **given: Any,
) -> None:
    """Make a pool of machines after a spec, or of an image alone.

    SPEC is a file with one machine in it; IMAGE a name from `vmctl image list`.
    """
    import os

    from vmctl.deadline import Deadline
    from vmctl.hypervisor import connection as connections
    from vmctl.runner.pooling import pools
    from vmctl.ui import progress

    uri = context.uri or connections.default_uri()
    at_once = refills or max(1, (os.cpu_count() or 1) // 2)
    made = pools.create(pools.Request(uri=uri, refills=at_once, **given))
    if no_start:
        if not context.quiet:
            click.echo(f"Supervise it: systemctl start vmctl-pool@{made.name}", err=True)
        return
    goes_on = ""
    try:
        pools.start(made.name)
        goes_on = ", and its supervisor goes on making its machines"
        if not no_wait:
            deadline = Deadline.after(_READY_SECONDS)
            progress.follow(pools.readied(made.name, deadline), quiet=context.quiet)
    except (KeyboardInterrupt, errors.InterruptError):
        raise errors.InterruptError(
            f"Interrupted; pool '{made.name}' stays{goes_on}.",
            hint=f"See it: vmctl pool status {made.name}; remove it: vmctl pool delete {made.name}",
        ) from None


@pool.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def list_pools(_context: contexts.Context, as_json: bool) -> None:
    """List pools with the states of their slots."""
    from vmctl.runner.pooling import pools
    from vmctl.store.layout import Layout
    from vmctl.ui import json_out, table

    found = pools.summaries(Layout.default())
    if as_json:
        json_out.emit(found)
        return
    shown = ("ready", "claimed", "working", "failed")
    rows = []
    for each in found:
        states = [slot["state"] for slot in each["slots"]]
        states = ["claimed" if state == "left" else state for state in states]
        counts = [states.count(state) for state in shown]
        pid = each["supervisor"] or "none"
        name = each["pool"]["name"]
        rows.append((name, len(states), *counts, each["waiting"], pid, _what(each)))
    table.show(
        ("name", "slots", *shown, "jobs waiting", "supervisor", "what"),
        rows,
        right=("slots", *shown, "jobs waiting", "supervisor"),
        empty="There are no pools. Make one: vmctl pool create NAME SPEC|IMAGE",
    )


@pool.command()
@click.argument("name", shell_complete=names)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--prometheus", is_flag=True, help="Print figures in Prometheus' text format.")
@contexts.options
def status(_context: contexts.Context, name: str, as_json: bool, prometheus: bool) -> None:
    """Show a pool's slots, and what its supervisor does."""
    from vmctl.runner.pooling import pools
    from vmctl.store.layout import Layout
    from vmctl.ui import json_out, terminal

    found = pools.status(Layout.default(), name)
    if as_json:
        json_out.emit(found)
    elif prometheus:
        from vmctl.runner.pooling import pool_metrics

        terminal.put(pool_metrics.text([found]).rstrip("\n"))
    else:
        _show(name, found)


def _what(found: dict[str, Any]) -> str:
    """Return why a pool hands out no machines, in a word or two."""
    if found["deleting"]:
        return "being deleted"
    if found["pool"]["drained"]:
        return "drained"
    return "" if found["pool"]["slots"] else "no slots"


def _show(name: str, found: dict[str, Any]) -> None:
    from vmctl.ui import table

    table.show(
        ("slot", "machine", "state", "for", "jobs", "what"),
        [
            (
                slot["slot"],
                slot["machine"],
                slot["state"],
                f"{slot['seconds']:.0f} s" if "seconds" in slot else "",
                slot.get("claims", ""),
                slot.get("problem") or slot.get("doing", ""),
            )
            for slot in found["slots"]
        ],
        right=("slot", "for", "jobs"),
        state="state",
    )
    if found["deleting"]:
        click.echo("It is being deleted.", err=True)
    elif found["pool"]["drained"]:
        click.echo(
            f"It is drained: it hands out no machines. Let it go on: "
            f"vmctl pool drain --resume {name}",
            err=True,
        )
    if not found["pool"]["slots"]:
        click.echo(f"It has no slots. Give it some: vmctl pool scale {name} N", err=True)
    if not found["supervisor"]:
        click.echo(f"Nobody supervises it: vmctl pool serve --background {name}", err=True)


@pool.command()
@click.argument("name", shell_complete=names)
@click.argument("slots", type=click.IntRange(0, 200))
@contexts.options
def scale(_context: contexts.Context, name: str, slots: int) -> None:
    """Give a pool another number of slots.

    Those that are new are made in the background; those that go are removed once their jobs have
    ended, the highest numbers first.
    """
    from vmctl.runner.pooling import pools
    from vmctl.store.layout import Layout

    pools.scale(Layout.default(), name, slots)


@pool.command()
@click.argument("name", shell_complete=names)
@click.option("--resume", is_flag=True, help="Hand out machines again.")
@click.option("--timeout", metavar="DURATION", callback=seconds, help="How long to wait; 1h.")
@contexts.options
def drain(_context: contexts.Context, name: str, resume: bool, timeout: float | None) -> None:
    """Hand out no more machines, and wait for the jobs that run.

    Jobs that wait for a machine, and those that ask meanwhile, are refused. The slots stay warm.
    """
    from vmctl.deadline import Deadline
    from vmctl.runner.pooling import pools
    from vmctl.store.layout import Layout

    deadline = Deadline.after(timeout if timeout is not None else _DRAIN_SECONDS)
    pools.drain(Layout.default(), name, deadline, resume=resume)


@pool.command()
@click.argument("name", shell_complete=names)
@click.option("--force", is_flag=True, help="End the jobs that run in it.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--timeout", metavar="DURATION", callback=seconds, help="How long to wait; 1h.")
@contexts.options
def delete(
    _context: contexts.Context, name: str, force: bool, yes: bool, timeout: float | None
) -> None:
    """Remove a pool with all its machines, once its jobs have ended."""
    from vmctl.deadline import Deadline
    from vmctl.runner.pooling import pool as pools_kept
    from vmctl.runner.pooling import pools
    from vmctl.store.layout import Layout
    from vmctl.ui import ask

    layout = Layout.default()
    found = pools_kept.read(layout, name)
    question = f"Remove pool '{name}' with its {found.slots} machines?"
    if not ask.confirm(question, yes=yes):
        click.echo("Nothing was removed.", err=True)
        click.get_current_context().exit(1)
    deadline = Deadline.after(timeout if timeout is not None else _DRAIN_SECONDS)
    for each in pools.delete(layout, name, deadline, force=force):
        click.echo(each, err=True)


@pool.command()
@click.argument("name", shell_complete=names)
@click.option("--background", is_flag=True, help="Return once it takes questions.")
@contexts.options
def serve(_context: contexts.Context, name: str, background: bool) -> None:
    """Supervise a pool: make its slots ready, hand them out, reset them.

    Goes on until the pool is deleted or it is asked to end (SIGTERM, Ctrl-C). Machines and jobs go
    on without it, and the next one takes them over.
    """
    from vmctl.runner.pooling import pool as pools_kept
    from vmctl.store.layout import Layout

    layout = Layout.default()
    found = pools_kept.read(layout, name)
    if not background:
        from vmctl.runner.pooling import supervisor

        supervisor.serve(layout, found.name)
        return
    from vmctl.runner import background as backgrounds
    from vmctl.runner.pooling import pool_client

    # A process of its own has nothing but words to tell why it did not begin.
    pool_client.refuse_second(layout, name)

    def work(begun: Any) -> None:
        from vmctl.runner.pooling import supervisor

        supervisor.serve(layout, found.name, begun)

    backgrounds.detach(layout.pool(name).log, work)
