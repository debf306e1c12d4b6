"""Draws images and the machines on them as a tree."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmctl import sizes
from vmctl.ui import escape, palette, progress, terminal

if TYPE_CHECKING:
    from vmctl.lifecycle.image_tree import Branch, Leaf, Tree

_DIGITS = 12
_MARKS = {True: ("├─ ", "└─ "), False: ("|- ", "`- ")}


def show(tree: Tree) -> None:
    """Print the tree, and below it what all of it takes."""
    out = terminal.of(sys.stdout)
    lines = [line for branch in tree.branches for line in _branch(branch, tree.longest, out)]
    if tree.others:
        lines += [out.painted("on no image", palette.HEADING)]
        lines += _leaves(tree.others, tree.longest, out)
    for line in lines:
        terminal.put(line)
    if not lines:
        progress.write("There is no image in the store.")
        return
    terminal.put(
        f"\nshared {sizes.said(tree.shared)}, own {sizes.said(tree.own)}, together "
        f"{sizes.said(tree.shared + tree.own)}; with a copy for each machine it would be "
        f"{sizes.said(tree.apart)}"
    )


def _branch(branch: Branch, longest: int, out: terminal.Terminal) -> Iterator[str]:
    names = ", ".join(escape.one_line(name) for name in branch.names) or "(no name)"
    title = out.painted(names, palette.HEADING)
    yield f"{title}  {branch.digest[:_DIGITS]}  {sizes.said(branch.shared)} shared"
    yield from _leaves(branch.leaves, longest, out)


def _leaves(leaves: tuple[Leaf, ...], longest: int, out: terminal.Terminal) -> Iterator[str]:
    more, last = _MARKS[out.unicode]
    for index, leaf in enumerate(leaves):
        mark = last if index == len(leaves) - 1 else more
        yield f"{mark}{escape.one_line(leaf.machine)}  {_said(leaf, longest)}"


def _said(leaf: Leaf, longest: int) -> str:
    if not leaf.files and not leaf.problem:
        return "its kernel; no disk on it"
    parts = [escape.one_line(leaf.disk), f"{sizes.said(leaf.own)} own"]
    parts += [f"of {sizes.said(leaf.size)}"] if leaf.size else []
    text = " ".join(parts)
    if len(leaf.files) > 1:
        text += f", {len(leaf.files)} of at most {longest} files deep"
    return f"{text}; NOT FOLLOWED: {escape.one_line(leaf.problem)}" if leaf.problem else text
