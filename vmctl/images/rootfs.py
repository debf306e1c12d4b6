"""A root file system in memory, put together from a container's layers.

Nothing of it ever exists on the host under a name from an archive: contents lie in numbered files,
names and owners are data. So there is nothing to escape from, and no privilege is needed for owners
and devices. (Rules of layers: OCI image specification, "Image Layer Filesystem Changeset".)
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import blobs
from vmctl.images.tarball import Archive, Kind, Member

MOST_ENTRIES = 1_000_000
"""Entries in all layers together; the largest images of today have a third of that."""

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_LONGEST_NAME = 255
_MOST_LINKS = 40
"""Symbolic links followed on one path, as in Linux."""

_DEEPEST = 256
_HOLE = 4096
_ZEROS = bytes(_HOLE)
_KEPT_XATTRS = (b"user.", b"security.capability", b"system.posix_acl_")
_LARGEST_XATTRS = 3500
"""Bytes of all attributes of one file: what fits into a block of ext4."""


@dataclasses.dataclass(slots=True, eq=False)
class Inode:
    """A file, directory, link or device; `content` is its file in the spool (None when empty)."""

    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    content: pathlib.Path | None = None
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = dataclasses.field(default_factory=dict)
    entries: dict[bytes, Entry] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True, eq=False)
class Entry:
    """A name in a directory, and the number of the layer that put it there."""

    inode: Inode
    layer: int


class Tree:
    """The files of all layers applied so far; contents go into the directory `spool`."""

    def __init__(self, spool: pathlib.Path, what: str) -> None:
        self.root = Inode(Kind.DIRECTORY)
        self._spool = spool
        self._what = what
        self._numbers = itertools.count()
        self._entries = 0
        self._bytes = 0
        self._layer = -1

    def apply(self, archive: Archive, deadline: Deadline) -> None:
        """Put the next layer on top. Raises RefusedError for one that no image has."""
        self._layer += 1
        for member in archive:
            blobs.refuse_to_be_late(self._what, deadline)
            self._entries += 1
            self._bytes += member.size
            if self._entries > MOST_ENTRIES or self._bytes > blobs.LARGEST:
                raise self._refused(
                    f"unpacks to more than {MOST_ENTRIES} files or {blobs.LARGEST >> 30} GiB"
                )
            self._put(archive, member)

    def find(self, path: bytes) -> Inode | None:
        """Return what a path leads to, all links followed within the tree, or None."""
        try:
            return self._walk([part for part in path.split(b"/") if part not in (b"", b".")])
        except errors.RefusedError:
            return None

    def walk(self) -> Iterator[tuple[bytes, Inode]]:
        """Yield all paths (without a leading slash) and inodes, sorted, directories first."""
        waiting = [(b"", self.root)]
        while waiting:
            place, inode = waiting.pop()
            if place:
                yield place, inode
            below = sorted(inode.entries.items(), reverse=True)
            waiting += [
                (place + b"/" + name if place else name, entry.inode) for name, entry in below
            ]

    def read(self, inode: Inode, most: int) -> bytes:
        """Return the first bytes of a file."""
        if inode.content is None:
            return b""
        with inode.content.open("rb") as stream:
            return stream.read(min(most, inode.size))

    def _refused(self, what: str) -> errors.RefusedError:
        return errors.RefusedError(f"{self._what} {what}; it is refused.")

    def _put(self, archive: Archive, member: Member) -> None:
        parts = self._parts(member.name)
        if not parts:
            if member.kind is Kind.DIRECTORY:
                self._describe(self.root, member)
            return
        name = parts[-1]
        if name.startswith(_WHITEOUT):
            self._white_out(parts[:-1], name)
            return
        above = self._directory(parts[:-1])
        there = above.entries.get(name)
        if member.kind is Kind.HARDLINK:
            target = self._linked(member)
            above.entries[name] = Entry(target, self._layer)
            return
        if (
            member.kind is Kind.DIRECTORY
            and there is not None
            and there.inode.kind is Kind.DIRECTORY
        ):
            self._describe(there.inode, member)
            there.layer = self._layer
            return
        inode = Inode(member.kind, device=member.device, size=member.size)
        if member.kind is Kind.SYMLINK:
            inode.target = member.target
            if not inode.target:
                raise self._refused(f"holds a link '{_shown(member.name)}' that leads nowhere")
        if member.kind is Kind.FILE and member.size:
            inode.content = self._spooled(archive)
        self._describe(inode, member)
        above.entries[name] = Entry(inode, self._layer)

    def _parts(self, name: bytes) -> list[bytes]:
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise self._refused(f"holds the name '{_shown(name)}', which leads out of it")
        if b"\n" in name:
            raise self._refused(f"holds the name '{_shown(name)}', which has a line break in it")
        if len(parts) > _DEEPEST or any(len(part) > _LONGEST_NAME for part in parts):
            raise self._refused("holds a name that is too long")
        return parts

    def _describe(self, inode: Inode, member: Member) -> None:
        inode.mode, inode.uid, inode.gid = member.mode, member.uid, member.gid
        inode.mtime = max(0, min(member.mtime, (1 << 34) - 1))
        inode.xattrs = {
            key: value for key, value in member.xattrs.items() if key.startswith(_KEPT_XATTRS)
        }
        if sum(len(key) + len(value) for key, value in inode.xattrs.items()) > _LARGEST_XATTRS:
            raise self._refused(f"gives '{_shown(member.name)}' attributes that are too large")
        if any(b"\n" in key for key in inode.xattrs):
            raise self._refused(f"gives '{_shown(member.name)}' an impossible attribute")

    def _linked(self, member: Member) -> Inode:
        """Return what a hard link means: a link as its last part is meant itself."""
        parts = self._parts(member.target)
        above = self._walk(parts[:-1]) if parts else None
        entry = above.entries.get(parts[-1]) if above is not None else None
        if entry is None or entry.inode.kind is Kind.DIRECTORY:
            raise self._refused(
                f"holds a hard link '{_shown(member.name)}' to '{_shown(member.target)}', which "
                "is no file of it"
            )
        return entry.inode

    def _walk(self, parts: list[bytes], *, make: bool = False) -> Inode | None:
        """Follow a path from the root, links as a process inside would; None where it ends.

        `make` makes the directories that are missing on the way.
        """
        trail = [self.root]
        waiting = list(reversed(parts))
        followed = 0
        while waiting:
            name = waiting.pop()
            here = trail[-1]
            if name == b"..":
                # Above the root is the root.
                trail = trail[:-1] or [self.root]
                continue
            if here.kind is not Kind.DIRECTORY:
                return None
            entry = here.entries.get(name)
            if entry is None and make and len(trail) < _DEEPEST:
                entry = here.entries[name] = Entry(Inode(Kind.DIRECTORY), self._layer)
            if entry is None:
                return None
            if entry.inode.kind is not Kind.SYMLINK:
                trail.append(entry.inode)
                continue
            followed += 1
            if followed > _MOST_LINKS:
                raise self._refused("holds symbolic links that go in circles")
            target = entry.inode.target
            if target.startswith(b"/"):
                trail = [self.root]
            waiting += [part for part in reversed(target.split(b"/")) if part not in (b"", b".")]
        return trail[-1]

    def _directory(self, parts: list[bytes]) -> Inode:
        """Return the directory of a new entry; what is missing of the path is made.

        A link on the way is followed inside the tree, as for a program that runs there.
        """
        found = self._walk(parts, make=True)
        if found is None or found.kind is not Kind.DIRECTORY:
            path = b"/".join(parts)
            raise self._refused(f"puts a file below '{_shown(path)}', which is no directory")
        return found

    def _white_out(self, parts: list[bytes], name: bytes) -> None:
        """Take away what lower layers put there; this layer's own entries stay."""
        above = self._walk(parts)
        if above is None or above.kind is not Kind.DIRECTORY:
            return
        if name == _OPAQUE:
            self._prune(above)
            return
        hidden = name.removeprefix(_WHITEOUT)
        entry = above.entries.get(hidden)
        if hidden and entry is not None and self._gone(entry):
            del above.entries[hidden]

    def _gone(self, entry: Entry) -> bool:
        """Prune below an entry; True when nothing of this layer is left of it."""
        self._prune(entry.inode)
        return entry.layer < self._layer and not entry.inode.entries

    def _prune(self, directory: Inode) -> None:
        for name in [name for name, entry in directory.entries.items() if self._gone(entry)]:
            del directory.entries[name]

    def _spooled(self, archive: Archive) -> pathlib.Path:
        """Write a file's content into the spool, zeros as holes."""
        path = self._spool / str(next(self._numbers))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            place = 0
            for piece in archive.content():
                _write_data(descriptor, piece, place)
                place += len(piece)
            os.ftruncate(descriptor, place)
        finally:
            os.close(descriptor)
        return path


def _write_data(descriptor: int, data: bytes, place: int) -> None:
    """Write a piece at its place, but for blocks of zeros: the file has a hole there."""
    if data.count(0) == len(data):
        return
    step = _HOLE if _ZEROS in data else len(data)
    for begin in range(0, len(data), step):
        left = memoryview(data)[begin : begin + step]
        at = place + begin
        while left and left != _ZEROS[: len(left)]:
            written = os.pwrite(descriptor, left, at)
            left, at = left[written:], at + written


def _shown(name: bytes) -> str:
    return os.fsdecode(name)
