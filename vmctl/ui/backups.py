"""Shows the backups of machines as trees."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vmctl import sizes
from vmctl.ui import escape, progress, table, terminal, tree

if TYPE_CHECKING:
    from vmctl.lifecycle.backup_list import Entry, Listing

_COLUMNS = ("backup", "kind", "guest", "age", "size", "comment")


def show(listings: Sequence[Listing]) -> None:
    """Print each machine's backups, the ones that need another below it."""
    if not listings:
        progress.write("There is no backup.")
    for number, listing in enumerate(listings):
        if len(listings) > 1:
            name = escape.one_line(listing.machine)
            terminal.put(f"{chr(10) if number else ''}{name}:")
        table.show(_COLUMNS, [_row(entry) for entry in listing.entries], right=("age", "size"))
        wrong = [(entry.backup.name, entry.problem) for entry in listing.entries if entry.problem]
        for name, problem in (*wrong, *listing.broken):
            terminal.put(f"broken: '{name}': {escape.one_line(problem)}")


def _row(entry: Entry) -> tuple[str, ...]:
    backup = entry.backup
    branch = "└─ " if terminal.of(sys.stdout).unicode else "`- "
    indent = f"{'   ' * (entry.depth - 1)}{branch}" if entry.depth else ""
    return (
        f"{indent}{backup.name}",
        backup.kind.value,
        "broken" if entry.problem else _guest(entry),
        tree.age(time.time() - backup.created),
        sizes.said(backup.bytes),
        backup.comment,
    )


def _guest(entry: Entry) -> str:
    """Say what the guest did at that moment."""
    backup = entry.backup
    if not backup.checkpoint:
        return "stopped"
    if not backup.running:
        return "paused"
    return "running, quiesced" if backup.quiesced else "running"
