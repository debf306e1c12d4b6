"""Tar archives as streams: the few kinds of entries that a copy has. Pure, for hostile input too.

Written and read is GNU's format of old, which GNU tar and busybox share: long names in entries of
type L and K, big numbers in base 256, holes in entries of type S. (GNU tar's manual, "Basic Tar
Format".) Python's tarfile reads an announced name of any length into memory, and knows no way to
write holes.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Sequence

from vmctl import errors

BLOCK = 512
_LONGEST_NAME = 1 << 16
"""Bytes; the kernel takes paths of 4096."""

_MOST_SEGMENTS = 1 << 20
_FIELD = 100
_SEGMENTS_IN_HEADER = 4
_SEGMENTS_IN_BLOCK = 21
_MAGIC = b"ustar  \x00"


class EarlyEndError(errors.RefusedError):
    """The archive ended in the middle: the connection was lost, or the sender failed."""


class Kind(enum.StrEnum):
    """What an entry is; the values are the letters of the format."""

    FILE = "0"
    HARD_LINK = "1"
    LINK = "2"
    DIRECTORY = "5"
    OTHER = "other"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry: `mtime` in seconds since 1970, `size` in bytes with the holes.

    `segments` are the offsets and lengths of what is no hole, None for a file that has none.
    """

    name: bytes
    kind: Kind
    size: int = 0
    mode: int = 0o644
    mtime: int = 0
    target: bytes = b""
    segments: tuple[tuple[int, int], ...] | None = None

    @property
    def stored(self) -> int:
        """Bytes of content in the archive."""
        if self.segments is None:
            return self.size
        return sum(length for _, length in self.segments)


def header(entry: Entry) -> bytes:
    """Return what stands ahead of an entry's content."""
    long = b""
    if len(entry.target) > _FIELD:
        long += _long(b"K", entry.target)
    if len(entry.name) > _FIELD:
        long += _long(b"L", entry.name)
    if entry.segments is None:
        return long + _block(entry, entry.kind.encode(), b"")
    # A hole at the end is told by an empty segment there.
    segments = (*entry.segments, (entry.size, 0))
    within, more = segments[:_SEGMENTS_IN_HEADER], segments[_SEGMENTS_IN_HEADER:]
    table = _table(within, _SEGMENTS_IN_HEADER, more=bool(more)) + _number(entry.size, 12)
    blocks = b""
    while more:
        begin, more = more[:_SEGMENTS_IN_BLOCK], more[_SEGMENTS_IN_BLOCK:]
        blocks += _table(begin, _SEGMENTS_IN_BLOCK, more=bool(more)).ljust(BLOCK, b"\0")
    return long + _block(entry, b"S", table) + blocks


def padding(size: int) -> bytes:
    """Return what fills the last block of a content."""
    return bytes(-size % BLOCK)


END = bytes(2 * BLOCK)
"""What stands at the end of an archive."""


def _long(kind: bytes, text: bytes) -> bytes:
    entry = Entry(name=b"././@LongLink", kind=Kind.FILE, size=len(text) + 1)
    return _block(entry, kind, b"") + text + b"\0" + padding(len(text) + 1)


def _table(segments: Sequence[tuple[int, int]], room: int, *, more: bool) -> bytes:
    text = b"".join(_number(number, 12) for segment in segments for number in segment)
    return text.ljust(24 * room, b"\0") + (b"\x01" if more else b"\0")


def _block(entry: Entry, kind: bytes, table: bytes) -> bytes:
    """Return a header block; `table` goes where the old format has its map of holes (386)."""
    stored = entry.stored if kind in b"0SLK" else 0
    fields = (
        entry.name[:_FIELD].ljust(_FIELD, b"\0"),
        _number(entry.mode, 8),
        _number(0, 8),
        _number(0, 8),
        _number(stored, 12),
        _number(max(0, entry.mtime), 12),
        b" " * 8,
        kind,
        entry.target[:_FIELD].ljust(_FIELD, b"\0"),
        _MAGIC,
        bytes(386 - 265),
        table,
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _number(value: int, width: int) -> bytes:
    if value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")


class Reader:
    """Reads an archive from pieces of bytes. Raises RefusedError for what is none."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._left = 0
        self._padding = 0

    def entries(self) -> Iterator[Entry]:
        """Yield the entries; the content of each is read with `content`, or passed over."""
        name = target = b""
        while True:
            for _ in self.content():
                pass
            self._exactly(self._padding)
            self._padding = 0
            block = self._exactly(BLOCK)
            if block == bytes(BLOCK):
                self._drain()
                return
            entry, kind = _parsed(block)
            if kind in (b"L", b"K"):
                if entry.size > _LONGEST_NAME:
                    raise _broken("a name of more than 64 KiB")
                text = self._exactly(entry.size + (-entry.size % BLOCK))[: entry.size]
                text = text.partition(b"\0")[0]
                name, target = (text, target) if kind == b"L" else (name, text)
                continue
            if kind == b"S":
                entry = self._with_segments(entry, block)
            entry = dataclasses.replace(
                entry, name=name or entry.name, target=target or entry.target
            )
            name = target = b""
            has_content = entry.kind in (Kind.FILE, Kind.OTHER)
            self._left = entry.stored if has_content else 0
            self._padding = -self._left % BLOCK
            yield entry

    def content(self) -> Iterator[bytes]:
        """Yield the stored bytes of the entry that was yielded last."""
        while self._left:
            if not self._buffer:
                self._more()
            data, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
            self._left -= len(data)
            yield data

    def _with_segments(self, entry: Entry, block: bytes) -> Entry:
        found = _segments(block[386:482])
        more = block[482]
        while more:
            if len(found) > _MOST_SEGMENTS:
                raise _broken("a map of holes without an end")
            block_of_map = self._exactly(BLOCK)
            found += _segments(block_of_map[:504])
            more = block_of_map[504]
        size = _value(block[483:495])
        end = 0
        for offset, length in found:
            if offset < end or offset + length > size:
                raise _broken("a map of holes that makes no sense")
            end = offset + length
        if sum(length for _, length in found) != entry.size:
            raise _broken("a map of holes that makes no sense")
        return dataclasses.replace(entry, size=size, segments=tuple(found))

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _more(self) -> None:
        piece = next(self._pieces, b"")
        if not piece:
            raise EarlyEndError("What the guest sent ended in the middle. Nothing was copied.")
        self._buffer += piece

    def _drain(self) -> None:
        """Let the sender end: it fills its last record with zeros."""
        self._buffer = b""
        for _ in self._pieces:
            pass


def _parsed(block: bytes) -> tuple[Entry, bytes]:
    plain = block[:148] + b" " * 8 + block[156:]
    if _value(block[148:156]) != sum(plain):
        raise _broken("a wrong checksum")
    kind = block[156:157]
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = _text(block[345:500]) + b"/" + name
    entry = Entry(
        name=name,
        kind=_KINDS.get(kind, Kind.OTHER),
        size=_value(block[124:136]),
        mode=_value(block[100:108]),
        mtime=_value(block[136:148]),
        target=_text(block[157:257]),
    )
    return entry, kind


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.LINK,
    b"5": Kind.DIRECTORY,
}


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _value(field: bytes) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:  # negative: a time before 1970
        return 0
    digits = field.split(b"\0")[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise _broken("a number that is none") from None


def _segments(table: bytes) -> list[tuple[int, int]]:
    found = []
    for place in range(0, len(table) - 23, 24):
        if table[place] == 0:
            break
        offset, length = _value(table[place : place + 12]), _value(table[place + 12 : place + 24])
        if length:
            found.append((offset, length))
    return found


def _broken(what: str) -> errors.RefusedError:
    return errors.RefusedError(f"What the guest sent is no archive that vmctl reads: {what}.")
