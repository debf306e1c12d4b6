from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable

import pytest

from tests.unit.test_images_elf import kernel as elf_kernel
from vmctl.deadline import Deadline
from vmctl.images import kernel

PVH = elf_kernel(b"Xen\0", 18)


def bzimage(payload: bytes, version: int = 0x20F) -> bytes:
    """Return a file laid out by the x86 boot protocol: two setup sectors, then the payload."""
    head = bytearray(3 * 512)
    head[0x1F1] = 2
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + bytes(16) + payload + b"after"


def extracted(data: bytes) -> bytes | None:
    return kernel.uncompressed(data, Deadline.after(10))


def old_lzma(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE)


@pytest.mark.parametrize("squeeze", [lzma.compress, gzip.compress, bz2.compress, old_lzma])
def test_takes_the_kernel_out(squeeze: Callable[[bytes], bytes]) -> None:
    size = struct.pack("<I", len(PVH))
    assert extracted(bzimage(squeeze(PVH) + size)) == PVH


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(4096),
        bzimage(b""),
        bzimage(b"neither compressed nor a kernel"),
        bzimage(lzma.compress(PVH)[:-20]),
        bzimage(lzma.compress(b"no ELF file")),
        bzimage(lzma.compress(elf_kernel(b"GNU\0", 1))),
        bzimage(lzma.compress(PVH), version=0x207),
    ],
)
def test_gives_nothing_where_the_kernel_cannot_be_started_directly(data: bytes) -> None:
    assert extracted(data) is None
