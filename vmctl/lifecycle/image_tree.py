"""Images as the roots of a tree, with the machines on them, and what each file takes."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from vmctl.images import chain, inventory
from vmctl.lifecycle.image_users import Disk, Users
from vmctl.store.layout import Layout

_BLOCK = 512


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A machine's disk on an image; `own` in bytes, `files` from the disk down to the image.

    A machine without a disk on the image (it starts its kernel) has neither name nor files.
    """

    machine: str
    disk: str = ""
    own: int = 0
    size: int = 0
    files: tuple[str, ...] = ()
    problem: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """An image and who uses it; `shared` is what the image takes on the disk (bytes)."""

    digest: str
    names: tuple[str, ...]
    shared: int
    leaves: tuple[Leaf, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """All of it: what is shared, what machines have of their own, and both without sharing."""

    branches: tuple[Branch, ...]
    others: tuple[Leaf, ...]
    shared: int
    own: int
    apart: int
    longest: int = chain.LONGEST


def grown(layout: Layout, users: Users) -> Tree:
    """Return the tree; disks on no image, and those that cannot be followed, are its `others`."""
    named = inventory.named(layout)
    # A file below another disk is shown as a part of that one.
    lower = {link.path for disk in users.disks for link in disk.chain.links[1:]}
    tops = [
        disk for disk in users.disks if not (disk.chain.links and disk.chain.links[0].path in lower)
    ]
    users = dataclasses.replace(users, disks=tuple(tops))
    branches = [
        _branch(layout, digest, named.get(digest, []), users)
        for digest in inventory.digests(layout)
    ]
    there = {branch.digest for branch in branches}
    others = tuple(_leaf(disk) for disk in users.disks if disk.digest not in there)
    leaves = [leaf for branch in branches for leaf in branch.leaves] + list(others)
    own = sum(leaf.own for leaf in leaves)
    return Tree(
        branches=tuple(branches),
        others=others,
        shared=_allocated([layout.image(branch.digest) for branch in branches]),
        own=own,
        apart=own + sum(branch.shared * max(1, len(branch.leaves)) for branch in branches),
    )


def _branch(layout: Layout, digest: str, names: list[str], users: Users) -> Branch:
    leaves = [_leaf(disk) for disk in users.disks if disk.digest == digest]
    with_disks = {leaf.machine for leaf in leaves}
    leaves += [Leaf(machine=name) for name in users.of(digest) if name not in with_disks]
    shown = (os.path.basename(name) or name for name in names)
    return Branch(
        digest=digest,
        names=tuple(shown),
        shared=_allocated([layout.image(digest)]),
        leaves=tuple(sorted(leaves, key=lambda leaf: (leaf.machine, leaf.disk))),
    )


def _leaf(disk: Disk) -> Leaf:
    links = disk.chain.links
    return Leaf(
        machine=disk.machine,
        disk=disk.name,
        own=disk.chain.own,
        size=links[0].size if links else 0,
        files=tuple(link.path for link in links),
        problem=disk.chain.problem,
    )


def _allocated(directories: Sequence[pathlib.Path]) -> int:
    """Return what files take on the disk; one with names in several images counts once."""
    blocks: dict[tuple[int, int], int] = {}
    for directory in directories:
        for above, _, names in os.walk(directory):
            for name in names:
                status = os.lstat(os.path.join(above, name))
                blocks[status.st_dev, status.st_ino] = status.st_blocks
    return sum(blocks.values()) * _BLOCK
