"""Takes the kernel proper out of a bzImage, so that the guest need not decompress it.

Under TCG the decompression alone costs a guest about three seconds. QEMU starts an uncompressed
kernel by the PVH protocol (Linux: Documentation/arch/x86/boot.rst; CONFIG_PVH).
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Protocol

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.images import elf

_SETUP_SECTORS = 0x1F1
_HEADER_MAGIC = 0x202
_VERSION = 0x206
_PAYLOAD = 0x248
_FIRST_VERSION_WITH_PAYLOAD = 0x208
_SECTOR = 512
_SIZE_SUFFIX = 4
"""The build appends the length of the kernel to its compressed form (some formats lack it)."""

_LARGEST = 1 << 30


def uncompressed(image: bytes, deadline: Deadline) -> bytes | None:
    """Return the ELF kernel inside a bzImage, or None when it cannot be started directly.

    None also where the compression is one that this host has no program for: the bzImage itself
    then serves, only more slowly.
    """
    payload = _payload(image)
    if payload is None:
        return None
    for magic, expand in _FORMATS:
        if payload.startswith(magic):
            try:
                kernel = expand(payload, deadline)
                return kernel if elf.Elf(kernel).starts_by_pvh else None
            except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
                return None
            except (errors.HostError, errors.ProgramError):
                return None
    return None


def _payload(image: bytes) -> bytes | None:
    """Return the compressed kernel (x86 boot protocol 2.08: payload_offset, payload_length)."""
    if len(image) < _PAYLOAD + 8 or image[_HEADER_MAGIC : _HEADER_MAGIC + 4] != b"HdrS":
        return None
    if struct.unpack_from("<H", image, _VERSION)[0] < _FIRST_VERSION_WITH_PAYLOAD:
        return None
    offset, size = struct.unpack_from("<II", image, _PAYLOAD)
    start = ((image[_SETUP_SECTORS] or 4) + 1) * _SECTOR + offset
    return image[start : start + size] or None


class _Decompressor(Protocol):
    """What the decompressors of the standard library have in common."""

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _within(make: Callable[[], _Decompressor]) -> Callable[[bytes, Deadline], bytes]:
    def expand(payload: bytes, _: Deadline) -> bytes:
        decompressor = make()
        kernel = decompressor.decompress(payload, _LARGEST)
        if not decompressor.eof:
            raise ValueError("the compressed kernel is cut short, or too large")
        return kernel

    return expand


def _filter(*argv: str) -> Callable[[bytes, Deadline], bytes]:
    def expand(payload: bytes, deadline: Deadline) -> bytes:
        return process.run(argv, deadline, stdin=payload[:-_SIZE_SUFFIX]).stdout

    return expand


_FORMATS: tuple[tuple[bytes, Callable[[bytes, Deadline], bytes]], ...] = (
    (b"\xfd7zXZ\0", _within(lzma.LZMADecompressor)),
    (b"\x1f\x8b", _within(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16))),
    (b"\x28\xb5\x2f\xfd", _filter("zstd", "-dc")),
    (b"\x02\x21\x4c\x18", _filter("lz4", "-dc")),
    (b"BZh", _within(bz2.BZ2Decompressor)),
    (b"\x5d\0\0", _within(lzma.LZMADecompressor)),
)
