"""Which files lie below a disk, read from the headers alone.

A header is data of a stranger: the guest can write to its overlay's content but not to its header,
yet whoever gets at the file can. So nothing outside the store is ever looked at, links are not
followed, and a chain may only be so long. (Format: QEMU, docs/interop/qcow2.txt.)
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import stat
import struct

from vmctl import errors
from vmctl.machine.model import DiskFormat

LONGEST = 16
"""Files in a chain, the base included. Every one costs a look-up at each read that goes through it;
libvirt itself gives up at 200."""

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_MAGIC = b"QFI\xfb"
_VERSIONS = (2, 3)
_LONGEST_NAME = 1023
_START = 64 << 10
"""Header, extensions and name lie in the first cluster, of this size in all that vmctl makes."""

_LENGTH_PLACE = 100
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA
_BLOCK = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """One file of a chain; `own` is what it takes, `size` what the guest sees, both in bytes."""

    path: str
    own: int
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """The files below a disk, from the disk down; `problem` says why it could not be followed.

    `end` is the lowest file in the store that was named, whether it can be read or not.
    """

    links: tuple[Link, ...]
    end: str
    problem: str = ""

    @property
    def base(self) -> Link:
        """The lowest file."""
        return self.links[-1]

    @property
    def own(self) -> int:
        """Bytes of all files but the lowest, if there is one below the disk."""
        above = self.links[:-1] if len(self.links) > 1 else self.links
        return sum(link.own for link in above)


def follow(
    path: pathlib.Path,
    store: pathlib.Path,
    format: DiskFormat = DiskFormat.QCOW2,  # noqa: A002
) -> Chain:
    """Return the chain of a disk of the store's. Never raises for what a file says."""
    links: list[Link] = []
    seen: set[str] = set()
    place, kind = os.path.abspath(path), str(format)
    while True:
        if place in seen:
            return Chain(tuple(links), place, f"'{place}' lies below itself")
        if len(links) == LONGEST:
            return Chain(
                tuple(links), place, f"there are more than {LONGEST} files below one another"
            )
        seen.add(place)
        try:
            link, below, kind = _read(place, kind)
        except OSError as problem:
            return Chain(tuple(links), place, f"'{place}' cannot be read: {problem.strerror}")
        except ValueError as problem:
            return Chain(tuple(links), place, f"'{place}' {problem}")
        links.append(link)
        if not below:
            return Chain(tuple(links), place)
        target = _inside(place, below, store)
        if target is None:
            return Chain(tuple(links), place, f"'{place}' refers to '{below}', outside the store")
        place = target


def refuse_long(path: pathlib.Path, store: pathlib.Path, format: DiskFormat) -> None:  # noqa: A002
    """Raise ConflictError where no more may be put on top of a disk, RefusedError for a bad one."""
    chain = follow(path, store, format)
    if len(chain.links) >= LONGEST:
        raise errors.ConflictError(
            f"The disk '{path}' already has {len(chain.links)} files below one another; more than "
            f"{LONGEST} are not made.",
            hint="See them: vmctl image tree",
        )
    if chain.problem:
        raise errors.RefusedError(f"The disk '{path}' cannot be used: {chain.problem}.")


def _inside(place: str, reference: str, store: pathlib.Path) -> str | None:
    """Return the file that a header names, if its name leads to a place in the store."""
    if re.match(r"[^/]*:", reference):
        return None
    target = os.path.normpath(os.path.join(os.path.dirname(place), reference))
    return target if target.startswith(f"{os.path.abspath(store)}/") else None


def _read(place: str, kind: str) -> tuple[Link, str, str]:
    """Return one file, the name that it refers to, and the format that it says that one has.

    Raises ValueError for a damaged header.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(place, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a regular file")
        own = status.st_blocks * _BLOCK
        if kind == DiskFormat.RAW:
            # What its first bytes say is the business of the guests that wrote them.
            return Link(place, own, status.st_size), "", ""
        if kind != DiskFormat.QCOW2:
            raise ValueError("has no format that vmctl knows")
        start = os.pread(descriptor, _START, 0)
    finally:
        os.close(descriptor)
    size, below, format_ = _parsed(start)
    return Link(place, own, size), below, format_


def _parsed(start: bytes) -> tuple[int, str, str]:
    """Return the size of the disk, and name and format of the file below it, from the header."""
    if len(start) < _HEADER.size or not start.startswith(_MAGIC):
        raise ValueError("is no qcow2 image")
    _, version, offset, length, _, size, *_ = _HEADER.unpack_from(start)
    name = start[offset : offset + length] if offset else b""
    end = offset or len(start)
    if version not in _VERSIONS or length > _LONGEST_NAME or b"\0" in name:
        raise ValueError("has a damaged header")
    if offset and (offset < _HEADER.size or len(name) != length or not length):
        raise ValueError("has a damaged header")
    place = _HEADER.size
    if version > _VERSIONS[0] and len(start) >= _LENGTH_PLACE + 4:
        (place,) = struct.unpack_from(">I", start, _LENGTH_PLACE)
    while _HEADER.size <= place <= end - _EXTENSION.size:
        kind, extent = _EXTENSION.unpack_from(start, place)
        content = start[place + _EXTENSION.size : place + _EXTENSION.size + extent]
        if kind == _BACKING_FORMAT:
            return size, os.fsdecode(name), content.decode("ascii", "replace")
        if kind == 0:
            break
        place += _EXTENSION.size + -(-extent // 8) * 8
    return size, os.fsdecode(name), ""
