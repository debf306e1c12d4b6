from __future__ import annotations

import struct
import uuid
import zlib

import pytest

from vmctl.images import partitions

DISK = uuid.UUID(int=7)
SIZE = 64 << 20
WISHES = [
    partitions.Wish(14, partitions.BIOS_BOOT, "bios", 1 << 20),
    partitions.Wish(15, partitions.EFI_SYSTEM, "efi", 16 << 20),
    partitions.Wish(1, partitions.LINUX_ROOT, "root", 0),
]


def test_partitions_lie_one_behind_the_other_on_whole_mebibytes() -> None:
    bios, efi, root = partitions.arrange(WISHES, SIZE, DISK)
    assert (bios.offset, bios.size) == (1 << 20, 1 << 20)
    assert (efi.offset, efi.size) == (2 << 20, 16 << 20)
    assert root.offset == 18 << 20
    assert root.size == 45 << 20, "the last MiB holds the second copy of the table"
    assert root.offset + root.size <= SIZE - 33 * 512


def test_sizes_are_rounded_up() -> None:
    (only,) = partitions.arrange(
        [partitions.Wish(1, partitions.LINUX_ROOT, "root", (1 << 20) + 1)], SIZE, DISK
    )
    assert only.size == 2 << 20


@pytest.mark.parametrize("size", [1 << 20, 17 << 20, 18 << 20])
def test_too_small_a_disk_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        partitions.arrange(WISHES, size, DISK)


def header(sector: bytes) -> tuple[int, ...]:
    signature, checksum = sector[:8], struct.unpack_from("<I", sector, 16)[0]
    assert signature == b"EFI PART"
    blank = sector[:16] + bytes(4) + sector[20:92]
    assert zlib.crc32(blank) == checksum
    return struct.unpack_from("<QQQQ", sector, 24)


def test_both_copies_of_the_table_say_the_same() -> None:
    arranged = partitions.arrange(WISHES, SIZE, DISK)
    image = bytearray(SIZE)
    for offset, content in partitions.tables(arranged, SIZE, DISK).items():
        image[offset : offset + len(content)] = content
    last = SIZE // 512 - 1
    first = header(image[512:1024])
    second = header(image[last * 512 :])
    assert first == (1, last, 34, last - 33)
    assert second == (last, 1, 34, last - 33)
    entries = image[1024 : 1024 + 16384]
    assert entries == image[(last - 32) * 512 : last * 512]
    assert zlib.crc32(entries) == struct.unpack_from("<I", image, 512 + 88)[0]
    root = entries[:128]
    assert uuid.UUID(bytes_le=bytes(root[:16])) == partitions.LINUX_ROOT
    assert struct.unpack_from("<QQ", root, 32) == (
        arranged[2].start,
        arranged[2].start + arranged[2].sectors - 1,
    )
    assert bytes(root[56:128]).decode("utf-16-le").rstrip("\0") == "root"
    assert not any(entries[128 : 13 * 128]), "numbers 2 to 13 are free"


def test_old_programs_see_one_partition_that_fills_the_disk() -> None:
    mbr = partitions.tables([], SIZE, DISK, b"\xeb\x63")[0][:512]
    assert mbr[:2] == b"\xeb\x63"
    assert mbr[510:] == b"\x55\xaa"
    assert mbr[446 + 4] == 0xEE
    assert struct.unpack_from("<II", mbr, 446 + 8) == (1, SIZE // 512 - 1)


def test_boot_code_that_would_overwrite_the_partitions_is_refused() -> None:
    with pytest.raises(ValueError, match="441 bytes"):
        partitions.tables([], SIZE, DISK, bytes(441))
