"""Shows the snapshots of machines as trees."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vmctl import sizes
from vmctl.ui import escape, table, terminal

if TYPE_CHECKING:
    from vmctl.lifecycle.snapshot_list import Entry, Listing

_COLUMNS = ("snapshot", "kind", "guest", "age", "memory", "comment")
_DRAWN = ("├─ ", "└─ ", "│  ")
_PLAIN = ("|- ", "`- ", "|  ")


def show(listings: Sequence[Listing]) -> None:
    """Print each machine's snapshots, children below their parent, `*` at the current one."""
    for number, listing in enumerate(listings):
        if len(listings) > 1:
            terminal.put(f"{chr(10) if number else ''}{listing.machine}:")
        table.show(
            _COLUMNS,
            [
                _row(entry, stem)
                for entry, stem in zip(listing.entries, stems(listing.entries), strict=True)
            ],
            right=("age", "memory"),
            empty=f"Machine '{listing.machine}' has no snapshots.",
        )
        for line in _remarks(listing):
            terminal.put(line)


def stems(entries: Sequence[Entry]) -> list[str]:
    """Return what is drawn before each name, so that one sees whose child it is."""
    fork, last, past = _DRAWN if terminal.of(sys.stdout).unicode else _PLAIN
    depths = [entry.depth for entry in entries]
    drawn = []
    for number, depth in enumerate(depths):
        more = [_another(depths[number + 1 :], level) for level in range(1, depth + 1)]
        above = [past if each else "   " for each in more[:-1]]
        drawn.append("".join([*above, *([fork if more[-1] else last] if depth else [])]))
    return drawn


def _another(later: Sequence[int], level: int) -> bool:
    """Tell whether one of this level follows below the same parent."""
    return next((depth for depth in later if depth <= level), 0) == level


def _row(entry: Entry, stem: str) -> tuple[str, ...]:
    snapshot = entry.snapshot
    mark = "*" if entry.current else " "
    return (
        f"{stem}{snapshot.name} {mark}".rstrip(),
        snapshot.kind.text,
        guest(entry),
        age(time.time() - snapshot.created),
        sizes.said(snapshot.memory) if snapshot.memory else "",
        snapshot.comment or (f"made by {snapshot.origin}" if snapshot.origin else ""),
    )


def guest(entry: Entry) -> str:
    """Say what the guest did at that moment."""
    snapshot = entry.snapshot
    if entry.problem:
        return "broken"
    if snapshot.kind == "offline":
        return "stopped"
    state = "running" if snapshot.running else "paused"
    return f"{state}, quiesced" if snapshot.quiesced else state


def age(seconds: float) -> str:
    """Return how long ago something was: 5 s, 5 min, 3 h, 12 d."""
    if seconds < 100:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 48 else f"{round(hours / 24)} d"


def _remarks(listing: Listing) -> Iterator[str]:
    for entry in listing.entries:
        if entry.problem:
            yield f"broken: '{entry.snapshot.name}': {escape.one_line(entry.problem)}"
    if listing.foreign:
        names = ", ".join(escape.one_line(name) for name in listing.foreign)
        yield f"not vmctl's own, left alone: {names}"
    if listing.unfinished:
        yield (
            f"interrupted: vmctl snapshot restore {listing.machine} {listing.unfinished} "
            "(run it again)"
        )


def show_one(machine: str, entry: Entry) -> None:
    """Show everything about one snapshot."""
    snapshot = entry.snapshot
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.created))
    pairs = (
        ("machine", machine),
        ("snapshot", snapshot.name + (" (the machine goes on from it)" if entry.current else "")),
        ("parent", snapshot.parent),
        ("kind", snapshot.kind.text),
        ("guest", guest(entry)),
        ("made", f"{made} ({age(time.time() - snapshot.created)} ago)"),
        ("made by", snapshot.origin and f"vmctl itself, for {snapshot.origin}"),
        ("memory", sizes.said(snapshot.memory) if snapshot.memory else ""),
        ("images", ", ".join(entry.carriers)),
        ("comment", escape.one_line(snapshot.comment)),
        ("problem", escape.one_line(entry.problem)),
    )
    terminal.put("\n".join(f"  {label + ':':<10} {text}" for label, text in pairs if text))
