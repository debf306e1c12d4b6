"""What running machines use: top."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from vmctl.cli import completion, lifecycle
from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from vmctl.hypervisor.connection import Connection
    from vmctl.lifecycle.usage import Usage
    from vmctl.store.layout import Layout


_SHORTEST_INTERVAL = 0.1
"""Seconds; below, the looking itself would be most of what is seen."""


@click.command()
@click.argument(
    "targets", nargs=-1, metavar="[SPEC|NAME]...", shell_complete=completion.machines_and_specs
)
@click.option(
    "--interval",
    metavar="DURATION",
    default="2s",
    callback=lifecycle.seconds,
    help="Time between two looks: 500ms, 2s.",
    show_default=True,
)
@click.option(
    "-n", "--count", type=click.IntRange(min=1), help="How many times; default: until Ctrl-C."
)
@click.option("--json", "as_json", is_flag=True, help="Print one measurement as JSON.")
@click.option("--prometheus", is_flag=True, help="Print counters in Prometheus' text format.")
@contexts.options
def top(
    context: contexts.Context,
    *,
    targets: tuple[str, ...],
    interval: float,
    count: int | None,
    as_json: bool,
    prometheus: bool,
) -> None:
    """Show what machines use: CPU, memory, disk and network.

    CPU in percent of one host CPU. RESIDENT is host memory that QEMU takes; MEMORY is the guest's,
    with what it uses of it where there is a virtio balloon. Into a pipe: one measurement.
    """
    from vmctl.hypervisor import connection as connections
    from vmctl.lifecycle import targets as meaning
    from vmctl.lifecycle import usage
    from vmctl.store.layout import Layout

    interval = max(interval, _SHORTEST_INTERVAL)
    layout = Layout.default()
    names = meaning.names(targets) if targets else ()
    with connections.opened(context.uri, layout) as connection:
        if prometheus:
            from vmctl.lifecycle import metrics
            from vmctl.ui import terminal

            terminal.put(metrics.text(usage.sample(connection, layout, names=names)).rstrip("\n"))
            return
        once = as_json or not sys.stdout.isatty()
        rounds = _measured(connection, layout, names, interval, count or (1 if once else None))
        _show(rounds, as_json=as_json)


def _show(rounds: Iterator[list[Usage]], *, as_json: bool) -> None:
    from vmctl.ui import gauges, json_out

    if as_json:
        json_out.emit(next(rounds))
        return
    # To leave is how this command ends; nothing was interrupted.
    with contextlib.suppress(KeyboardInterrupt):
        gauges.watch(rounds)


def _measured(
    connection: Connection,
    layout: Layout,
    names: Sequence[str],
    interval: float,
    count: int | None,
) -> Iterator[list[Usage]]:
    from vmctl.lifecycle import usage

    before = usage.sample(connection, layout, names=names)
    while count is None or count > 0:
        time.sleep(interval)
        now = usage.sample(connection, layout, names=names)
        yield usage.between(before, now)
        before = now
        count = None if count is None else count - 1
