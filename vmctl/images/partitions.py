"""Writes partition tables (GPT with a protective MBR) into disk images, without a device.

Source: UEFI Specification 2.10, chapter 5.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

SECTOR = 512
ALIGNMENT = 2048
"""Sectors (1 MiB) on which partitions begin, as every partitioning program has it."""

BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX_ROOT = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
"""Root file system of x86-64 (Discoverable Partitions Specification)."""

_ENTRIES = 128
_ENTRY = struct.Struct("<16s16sQQQ72s")
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_TABLE_SECTORS = _ENTRIES * _ENTRY.size // SECTOR
_REVISION = 0x00010000
_PROTECTIVE = 0xEE
_BOOT_CODE = 440
_MOST_SECTORS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition: its number, and where it begins and how long it is, in sectors."""

    number: int
    kind: uuid.UUID
    identity: uuid.UUID
    name: str
    start: int
    sectors: int

    @property
    def offset(self) -> int:
        """Where it begins, in bytes."""
        return self.start * SECTOR

    @property
    def size(self) -> int:
        """How long it is, in bytes."""
        return self.sectors * SECTOR


@dataclass(frozen=True, slots=True)
class Wish:
    """A partition that is wanted; `size` in bytes, 0: all that the others leave."""

    number: int
    kind: uuid.UUID
    name: str
    size: int


def arrange(wishes: Sequence[Wish], size: int, disk: uuid.UUID) -> list[Partition]:
    """Lay partitions out on a disk of `size` bytes, in this order; only the last may have size 0.

    Their identities follow from that of the disk. Raises ValueError when they do not fit.
    """
    end = size // SECTOR - _TABLE_SECTORS - 1
    place = ALIGNMENT
    arranged = []
    for wish in wishes:
        sectors = _aligned(-(-wish.size // SECTOR)) or (end - place) // ALIGNMENT * ALIGNMENT
        if sectors <= 0 or place + sectors > end:
            raise ValueError(f"partition '{wish.name}' does not fit on a disk of {size} bytes")
        identity = uuid.uuid5(disk, wish.name)
        arranged.append(Partition(wish.number, wish.kind, identity, wish.name, place, sectors))
        place += sectors
    return arranged


def _aligned(sectors: int) -> int:
    return -(-sectors // ALIGNMENT) * ALIGNMENT


def tables(
    partitions: Sequence[Partition], size: int, disk: uuid.UUID, boot_code: bytes = b""
) -> dict[int, bytes]:
    """Return what to write, by offset in bytes: MBR with `boot_code`, both copies of the GPT."""
    total = size // SECTOR
    entries = _entries(partitions)
    last = total - 1
    return {
        0: _protective_mbr(total, boot_code) + _header(1, last, 2, entries, total, disk) + entries,
        (last - _TABLE_SECTORS) * SECTOR: entries
        + _header(last, 1, last - _TABLE_SECTORS, entries, total, disk),
    }


def _entries(partitions: Sequence[Partition]) -> bytes:
    table = bytearray(_ENTRIES * _ENTRY.size)
    for each in partitions:
        _ENTRY.pack_into(
            table,
            (each.number - 1) * _ENTRY.size,
            each.kind.bytes_le,
            each.identity.bytes_le,
            each.start,
            each.start + each.sectors - 1,
            0,
            each.name.encode("utf-16-le"),
        )
    return bytes(table)


def _header(own: int, other: int, table: int, entries: bytes, total: int, disk: uuid.UUID) -> bytes:
    def packed(checksum: int) -> bytes:
        return _HEADER.pack(
            b"EFI PART",
            _REVISION,
            _HEADER.size,
            checksum,
            0,
            own,
            other,
            2 + _TABLE_SECTORS,
            total - _TABLE_SECTORS - 2,
            disk.bytes_le,
            table,
            _ENTRIES,
            _ENTRY.size,
            zlib.crc32(entries),
        )

    return packed(zlib.crc32(packed(0))).ljust(SECTOR, b"\0")


def _protective_mbr(total: int, boot_code: bytes) -> bytes:
    if len(boot_code) > _BOOT_CODE:
        raise ValueError(f"boot code of {len(boot_code)} bytes is longer than {_BOOT_CODE}")
    record = struct.pack(
        "<B3sB3sII",
        0,
        b"\x00\x02\x00",
        _PROTECTIVE,
        b"\xff\xff\xff",
        1,
        min(total - 1, _MOST_SECTORS),
    )
    return boot_code.ljust(446, b"\0") + record + bytes(48) + b"\x55\xaa"
