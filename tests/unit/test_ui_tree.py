"""The tree of snapshots: lines lead from each one to its parent."""

from __future__ import annotations

import pytest

from vmctl.lifecycle.snapshot_list import Entry, Listing
from vmctl.store.snapshots import Kind, Snapshot, Tree
from vmctl.ui import tree

PARENTS = {"a": "", "b": "a", "d": "b", "c": "a", "e": "c", "f": "c", "g": ""}


def listing() -> Listing:
    kept = Tree(
        tuple(
            Snapshot(name=name, kind=Kind.OFFLINE, parent=parent)
            for name, parent in PARENTS.items()
        )
    )
    entries = (
        Entry(depth=depth, current=each.name == "e", snapshot=each)
        for depth, each in kept.ordered()
    )
    return Listing(machine="m", entries=tuple(entries))


def test_lines_lead_to_the_parent(capsys: pytest.CaptureFixture[str]) -> None:
    tree.show([listing()])
    names = [line.partition("  disks")[0].rstrip() for line in capsys.readouterr().out.splitlines()]
    drawn = ["a", "├─ b", "│  └─ d", "└─ c", "   ├─ e *", "   └─ f", "g"]
    plain = ["a", "|- b", "|  `- d", "`- c", "   |- e *", "   `- f", "g"]
    assert names[1:] in (drawn, plain)


def test_nothing_to_draw(capsys: pytest.CaptureFixture[str]) -> None:
    assert tree.stems(()) == []
    tree.show([Listing(machine="m", entries=())])
    assert "├" not in capsys.readouterr().out
