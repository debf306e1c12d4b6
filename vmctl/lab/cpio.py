"""Reads initramfs archives (cpio, newc format): the other half of `images.initramfs`."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Iterator

from vmctl import errors
from vmctl.images.initramfs import Entry

_MAGIC = b"070701"
_HEADER = 110
_TRAILER = "TRAILER!!!"
_ALIGNMENT = 4


def entries(archive: bytes) -> Iterator[tuple[str, Entry]]:
    """Yield path and entry of all that is in the archive, in its order.

    Raises RefusedError for what is no such archive.
    """
    at = 0
    while True:
        header = archive[at : at + _HEADER]
        if header[:6] != _MAGIC or len(header) < _HEADER:
            raise errors.RefusedError("The initramfs is no uncompressed cpio archive (newc).")
        fields = [int(header[6 + 8 * index : 14 + 8 * index], 16) for index in range(13)]
        name_at = at + _HEADER
        name = archive[name_at : name_at + fields[11] - 1].decode()
        content_at = _aligned(name_at + fields[11])
        at = _aligned(content_at + fields[6])
        if name == _TRAILER:
            return
        yield name, Entry(fields[1], archive[content_at : content_at + fields[6]])


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT


def place(root: pathlib.Path, path: str, entry: Entry) -> None:
    """Put an entry below `root`; devices are left out. Raises RefusedError for one outside it."""
    target = root / path
    if os.path.isabs(path) or ".." in pathlib.PurePosixPath(path).parts:
        raise errors.RefusedError(f"The initramfs holds the path '{path}'.")
    if root.resolve() not in (target.parent.resolve(), *target.parent.resolve().parents):
        raise errors.RefusedError(f"The initramfs holds '{path}' behind a link that leads outside.")
    if stat.S_ISDIR(entry.mode):
        target.mkdir(exist_ok=True)
    elif stat.S_ISLNK(entry.mode):
        target.symlink_to(entry.content.decode())
    elif stat.S_ISREG(entry.mode):
        target.write_bytes(entry.content)
        target.chmod(stat.S_IMODE(entry.mode))
