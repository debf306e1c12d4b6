"""Reads the few things of ELF files that building an image needs (64-bit, little-endian)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"\x7fELF"

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC = struct.Struct("<qQ")
_NOTE = struct.Struct("<III")

_PT_INTERP = 3
_PT_NOTE = 4
_SHT_DYNAMIC = 6
_DT_NULL = 0
_DT_NEEDED = 1
_XEN_ELFNOTE_PHYS32_ENTRY = 18


class NotElfError(ValueError):
    """The bytes are not a 64-bit little-endian ELF file, or are cut short."""


@dataclass(frozen=True, slots=True)
class _Section:
    name_offset: int
    kind: int
    offset: int
    size: int
    link: int


class Elf:
    """One ELF file in memory. Raises NotElfError where the bytes make no sense."""

    def __init__(self, data: bytes) -> None:
        if data[:6] != MAGIC + b"\x02\x01" or len(data) < _HEADER.size:
            raise NotElfError("not a 64-bit little-endian ELF file")
        self._data = data
        fields = _HEADER.unpack_from(data)
        self._program_offset, self._section_offset = fields[5], fields[6]
        self._program_count = fields[10]
        self._section_count, self._names_index = fields[12], fields[13]

    @property
    def needed(self) -> tuple[str, ...]:
        """The shared libraries that the file asks for (DT_NEEDED), in order."""
        sections = list(self._sections())
        for section in sections:
            if section.kind == _SHT_DYNAMIC:
                strings = sections[section.link].offset
                return tuple(
                    self._text(strings + value)
                    for tag, value in self._dynamic(section)
                    if tag == _DT_NEEDED
                )
        return ()

    @property
    def interpreter(self) -> str:
        """The path of the program loader (PT_INTERP); empty for static programs and libraries."""
        for kind, offset, _ in self._programs():
            if kind == _PT_INTERP:
                return self._text(offset)
        return ""

    @property
    def starts_by_pvh(self) -> bool:
        """True for a kernel that says where to enter it by the PVH protocol."""
        for kind, offset, size in self._programs():
            if kind == _PT_NOTE and any(
                (name, note) == (b"Xen\0", _XEN_ELFNOTE_PHYS32_ENTRY)
                for name, note in self._notes(offset, size)
            ):
                return True
        return False

    def section(self, name: str) -> bytes:
        """Return the content of a section, empty when there is none of that name."""
        sections = list(self._sections())
        if not sections:
            return b""
        names = sections[self._names_index].offset
        for section in sections:
            if self._text(names + section.name_offset) == name:
                return self._data[section.offset : section.offset + section.size]
        return b""

    def _unpack(self, layout: struct.Struct, offset: int) -> tuple[int, ...]:
        try:
            return layout.unpack_from(self._data, offset)
        except struct.error as problem:
            raise NotElfError(f"cut short: {problem}") from None

    def _programs(self) -> Iterator[tuple[int, int, int]]:
        for index in range(self._program_count):
            fields = self._unpack(_PROGRAM, self._program_offset + index * _PROGRAM.size)
            yield fields[0], fields[2], fields[5]

    def _sections(self) -> Iterator[_Section]:
        for index in range(self._section_count):
            fields = self._unpack(_SECTION, self._section_offset + index * _SECTION.size)
            yield _Section(fields[0], fields[1], fields[4], fields[5], fields[6])

    def _dynamic(self, section: _Section) -> Iterator[tuple[int, int]]:
        for offset in range(section.offset, section.offset + section.size, _DYNAMIC.size):
            tag, value = self._unpack(_DYNAMIC, offset)
            if tag == _DT_NULL:
                return
            yield tag, value

    def _notes(self, offset: int, size: int) -> Iterator[tuple[bytes, int]]:
        end = offset + size
        while offset + _NOTE.size <= end:
            name_size, content_size, kind = self._unpack(_NOTE, offset)
            name = self._data[offset + _NOTE.size : offset + _NOTE.size + name_size]
            yield name, kind
            offset += _NOTE.size + _aligned(name_size) + _aligned(content_size)

    def _text(self, offset: int) -> str:
        end = self._data.find(b"\0", offset)
        if not 0 <= offset < len(self._data) or end < 0:
            raise NotElfError("cut short: a name lies outside the file")
        return self._data[offset:end].decode("ascii", "replace")


def _aligned(size: int) -> int:
    return (size + 3) & ~3
