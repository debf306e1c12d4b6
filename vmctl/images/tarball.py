"""Reads tar archives of strangers: ustar, pax and GNU names, under limits, and nothing else.

Python's own reader trusts what it reads (CVE-2019-20907, CVE-2024-6232, CVE-2025-8194: endless
loops), decodes names, and hides extended attributes. Here names stay bytes, nothing is ever put on
the disk under a name of the archive's, and every number is checked before it is used.
(Format: POSIX.1-2017 pax; GNU tar manual, "Basic Tar Format".)
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator
from typing import Protocol

from vmctl import errors

BLOCK = 512
CHUNK = 1 << 20
LONGEST_PATH = 4096
_LARGEST_HEADER = 1 << 20
"""Bytes of extended headers for one member; names and attributes take a few KiB at most."""

_XATTR = b"SCHILY.xattr."
_SPARSE = (b"GNU.sparse", b"SCHILY.realsize")
_LARGEST_ID = (1 << 32) - 2


class Kind(enum.StrEnum):
    """What an entry is; the values are those of the type flag."""

    FILE = "0"
    HARDLINK = "1"
    SYMLINK = "2"
    CHARACTER = "3"
    BLOCK = "4"
    DIRECTORY = "5"
    FIFO = "6"


class Stream(Protocol):
    """Bytes in order; an empty answer is the end."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, fewer only at the end."""


@dataclasses.dataclass(slots=True)
class Member:
    """One entry; `place` is where its content begins in the archive (bytes)."""

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    target: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes]
    place: int


class Archive:
    """A tar archive that is read once, from its beginning to its end.

    `what` names it in errors. Iterating yields the members; between two of them `content` yields
    the bytes of the first; `skip` passes over what nobody looks at, where that is cheaper than
    reading it. Raises RefusedError for what no tar program writes.
    """

    def __init__(
        self, stream: Stream, what: str, skip: Callable[[int], None] | None = None
    ) -> None:
        self._stream = stream
        self._what = what
        self._skip = skip
        self._place = 0
        self._extended = 0
        self._left = 0
        self._padding = 0
        self._global: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Member]:
        own: dict[bytes, bytes] = {}
        while (header := self._header()) is not None:
            flag = header[156:157]
            size = self._number(header[124:136])
            if flag in (b"x", b"g", b"L", b"K"):
                content = self._extension(size)
                if flag == b"x":
                    own.update(self._records(content))
                elif flag == b"g":
                    self._global.update(self._records(content))
                else:
                    own[b"path" if flag == b"L" else b"linkpath"] = content.rstrip(b"\0")
                continue
            yield self._member(header, {**self._global, **own})
            own = {}
            self._extended = 0

    def content(self) -> Iterator[bytes]:
        """Yield the content of the member that was yielded last, in pieces."""
        while self._left:
            piece = self._exactly(min(CHUNK, self._left))
            self._left -= len(piece)
            yield piece

    def refused(self, what: str) -> errors.RefusedError:
        """Return the error for an archive that is not as it should be."""
        return errors.RefusedError(
            f"{self._what} {what}.", hint="Make it again, or fetch it again and compare its digest."
        )

    def _header(self) -> bytes | None:
        """Return the next header, or None at the end; what was not read before it is skipped."""
        if self._skip is not None:
            self._skip(self._left + self._padding)
            self._place += self._left + self._padding
        else:
            for _ in self.content():
                pass
            self._exactly(self._padding)
        self._left = self._padding = 0
        header = self._read(BLOCK)
        if not header or not header.strip(b"\0"):
            return None
        if len(header) < BLOCK:
            raise self.refused("is cut short")
        self._check_sum(header)
        return header

    def _check_sum(self, header: bytes) -> None:
        written = self._number(header[148:156])
        # The sum is made with blanks in its own place.
        if written != sum(header[:148]) + 8 * 0x20 + sum(header[156:]):
            raise self.refused("is no tar archive, or is damaged")

    def _member(self, header: bytes, own: dict[bytes, bytes]) -> Member:
        kind = self._kind(header[156:157])
        if any(key.startswith(_SPARSE) for key in own):
            raise self.refused("holds a sparse entry, which images do not have")
        name = header[:100].partition(b"\0")[0]
        if header[257:263] == b"ustar\0":
            prefix = header[345:500].partition(b"\0")[0]
            name = prefix + b"/" + name if prefix else name
        name = own.get(b"path", name)
        target = own.get(b"linkpath", header[157:257].partition(b"\0")[0])
        size = self._decimal(own, b"size", self._number(header[124:136]))
        member = Member(
            name=name,
            kind=kind,
            mode=self._number(header[100:108]) & 0o7777,
            uid=self._decimal(own, b"uid", self._number(header[108:116])),
            gid=self._decimal(own, b"gid", self._number(header[116:124])),
            mtime=self._decimal(own, b"mtime", self._number(header[136:148])),
            size=size if kind is Kind.FILE else 0,
            target=target,
            device=(self._number(header[329:337]), self._number(header[337:345])),
            xattrs={key[len(_XATTR) :]: own[key] for key in own if key.startswith(_XATTR)},
            place=self._place,
        )
        self._check(member)
        # Old archives give directories and links a size that no content follows; see POSIX, ustar.
        self._left = member.size
        self._padding = -member.size % BLOCK
        return member

    def _check(self, member: Member) -> None:
        for what, text in (("name", member.name), ("link", member.target)):
            if len(text) > LONGEST_PATH or b"\0" in text:
                raise self.refused(f"holds a {what} that no file can have")
        if not 0 <= member.uid <= _LARGEST_ID or not 0 <= member.gid <= _LARGEST_ID:
            raise self.refused("holds an owner that does not exist")
        major, minor = member.device
        if member.size < 0 or not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise self.refused("holds an impossible number")

    def _kind(self, flag: bytes) -> Kind:
        # NUL and 7 ("contiguous") are files of older programs.
        flag = b"0" if flag in (b"\0", b"7") else flag
        try:
            return Kind(flag.decode("ascii"))
        except ValueError:
            shown = flag.decode("ascii", "backslashreplace")
            raise self.refused(f"holds an entry of a kind ('{shown}') that is not known") from None

    def _number(self, field: bytes) -> int:
        """Read a number: octal digits, or GNU's base 256 where the first bit is set."""
        if field[0] & 0x80:
            value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
            bits = 8 * len(field) - 1
            return value - (1 << bits) if field[0] & 0x40 else value
        digits = field.strip(b" \0")
        try:
            return int(digits, 8) if digits else 0
        except ValueError:
            raise self.refused("is no tar archive, or is damaged") from None

    def _decimal(self, own: dict[bytes, bytes], key: bytes, otherwise: int) -> int:
        text = own.get(key)
        if text is None:
            return otherwise
        whole = text.partition(b".")[0]
        if not whole.lstrip(b"-").isdigit() or len(whole) > 20:
            raise self.refused("holds an impossible number")
        return int(whole)

    def _extension(self, size: int) -> bytes:
        # Counted over all headers before a member: many small ones fill the memory as well.
        self._extended += max(size, BLOCK)
        if size < 0 or self._extended > _LARGEST_HEADER:
            raise self.refused("holds an extended header of an impossible size")
        content = self._exactly(size)
        self._exactly(-size % BLOCK)
        return content

    def _records(self, content: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values of a pax header: "LENGTH KEY=VALUE", and a line's end."""
        while content.strip(b"\0"):
            length, blank, _ = content.partition(b" ")
            if not blank or len(length) > 7 or not length.isdigit():
                raise self.refused("holds a damaged extended header")
            record, content = content[: int(length)], content[int(length) :]
            key, equals, value = record[len(length) + 1 :].partition(b"=")
            if len(record) != int(length) or not equals or not value.endswith(b"\n"):
                raise self.refused("holds a damaged extended header")
            yield key, value[:-1]

    def _exactly(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) != size:
            raise self.refused("is cut short")
        return data

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size) if size else b""
        while 0 < len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                break
            data += more
        self._place += len(data)
        return data
