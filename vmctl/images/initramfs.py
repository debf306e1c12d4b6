"""Writes initramfs archives (cpio, newc format) whose bytes depend on their content alone."""

from __future__ import annotations

import io
import stat
from collections.abc import Mapping
from dataclasses import dataclass

_MAGIC = "070701"
_TRAILER = "TRAILER!!!"
_ALIGNMENT = 4
_HEADER = 110
"""Bytes: the magic and thirteen numbers of eight digits."""

_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in the archive; `mode` holds type and permissions, `device` (major, minor)."""

    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def regular(content: bytes, permissions: int = 0o644) -> Entry:
    """Return a file."""
    return Entry(stat.S_IFREG | permissions, content)


def directory(permissions: int = 0o755) -> Entry:
    """Return a directory."""
    return Entry(stat.S_IFDIR | permissions)


def link(target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def character_device(major: int, minor: int, permissions: int = 0o600) -> Entry:
    """Return a character device node; writing one into an archive needs no privilege."""
    return Entry(stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Mapping[str, Entry]) -> bytes:
    """Return the archive of `entries` (paths without a leading slash), sorted, owned by root.

    Missing parent directories are added. Times are 0 and inode numbers count up, so that equal
    entries give equal bytes (see Documentation/driver-api/early-userspace/buffer-format.rst).
    """
    stream = io.BytesIO()
    complete = _with_parents(entries)
    for inode, path in enumerate(sorted(complete), start=1):
        _write(stream, path, complete[path], inode)
    _write(stream, _TRAILER, Entry(0), 0)
    stream.write(bytes(-stream.tell() % _BLOCK))
    return stream.getvalue()


def links(content: bytes) -> dict[str, str]:
    """Return the symbolic links of an archive that `archive` wrote, by their paths."""
    found: dict[str, str] = {}
    place = 0
    while content[place : place + len(_MAGIC)] == _MAGIC.encode():
        header = content[place + len(_MAGIC) : place + _HEADER]
        mode, size, name_size = (int(header[8 * n : 8 * n + 8], 16) for n in (1, 6, 11))
        name = content[place + _HEADER : place + _HEADER + name_size - 1].decode()
        begin = place + _aligned(_HEADER + name_size)
        if stat.S_ISLNK(mode):
            found[name] = content[begin : begin + size].decode()
        place = begin + _aligned(size)
    return found


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _with_parents(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    complete = dict(entries)
    for path in entries:
        parts = path.split("/")
        for length in range(1, len(parts)):
            complete.setdefault("/".join(parts[:length]), directory())
    return complete


def _write(stream: io.BytesIO, path: str, entry: Entry, inode: int) -> None:
    name = path.encode() + b"\0"
    fields = (
        inode,
        entry.mode,
        0,  # uid
        0,  # gid
        2 if stat.S_ISDIR(entry.mode) else 1,
        0,  # mtime
        len(entry.content),
        0,  # device the archive was made on
        0,
        *entry.device,
        len(name),
        0,  # checksum, unused in this format
    )
    stream.write((_MAGIC + "".join(f"{field:08x}" for field in fields)).encode() + name)
    stream.write(bytes(-stream.tell() % _ALIGNMENT))
    stream.write(entry.content)
    stream.write(bytes(-stream.tell() % _ALIGNMENT))
