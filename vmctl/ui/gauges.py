"""Shows what machines use: a table that is redrawn on a terminal, printed once elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from vmctl import sizes
from vmctl.ui import table, terminal

if TYPE_CHECKING:
    from vmctl.lifecycle.usage import Usage

_COLUMNS = ("name", "state", "cpu %", "memory", "resident", "read/s", "write/s", "recv/s", "sent/s")
_RIGHT = _COLUMNS[2:]
_EMPTY = "No machines. Make one: vmctl init && vmctl up"


def show(found: Sequence[Usage]) -> None:
    """Print one table."""
    table.show(_COLUMNS, _rows(found), right=_RIGHT, state="state", empty=_EMPTY)


def watch(measured: Iterable[Sequence[Usage]]) -> None:
    """Show each measurement in the place of the one before; Ctrl-C ends it."""
    if not terminal.of(sys.stdout).moves:
        for found in measured:
            show(found)
            sys.stdout.flush()
        return
    from rich.live import Live

    from vmctl.ui import drawing

    out = terminal.of(sys.stdout)
    with Live(console=drawing.console(sys.stdout, out), auto_refresh=False) as live:
        for found in measured:
            # The terminal may have been resized, by which rich alone would not go.
            live.console.width = terminal.of(sys.stdout).width
            live.update(
                table.drawn(_COLUMNS, _rows(found), right=_RIGHT, state="state"), refresh=True
            )


def _rows(found: Sequence[Usage]) -> list[tuple[str, ...]]:
    return [
        (
            usage.name,
            usage.state,
            _or_nothing(usage.cpu, "{:.0f}".format),
            _memory(usage),
            _or_nothing(usage.resident, sizes.short),
            _or_nothing(usage.disk_read_rate, sizes.short),
            _or_nothing(usage.disk_write_rate, sizes.short),
            _or_nothing(usage.receive_rate, sizes.short),
            _or_nothing(usage.send_rate, sizes.short),
        )
        for usage in found
    ]


def _or_nothing(value: float | None, form: Callable[[float], str]) -> str:
    return "" if value is None else form(value)


def _memory(usage: Usage) -> str:
    """What the guest uses of what it has; only a virtio balloon tells the former."""
    if usage.memory is None:
        return ""
    whole = sizes.short(usage.memory)
    return whole if usage.used is None else f"{sizes.short(usage.used)}/{whole}"
