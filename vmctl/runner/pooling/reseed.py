"""A program of 200 bytes that gives a guest's kernel fresh entropy, and has it used at once.

All jobs of a slot begin from one saved state, random numbers included. What is written to
/dev/urandom waits for the kernel's next reseeding, up to a minute; only two ioctls of random(4) end
that, and a guest need not have anything that can call them.
"""

from __future__ import annotations

import struct

SEED_BYTES = 256
"""How much a job's guest is given; the program takes up to 512."""

_ADDRESS = 0x400000
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_READ_EXECUTE = 5

# Exit status: 0, or 1 no input, 2 no /dev/urandom, 3 RNDADDENTROPY and 4 RNDRESEEDCRNG refused.
_CODE = (
    "4881ec10020000",  # sub rsp, 528             struct rand_pool_info { count; size; buf[512] }
    "31c0 31ff 488d742408 ba00020000 0f05",  # n = read(0, rsp + 8, 512)
    "bb01000000 85c0 7e5b",  # status 1 where n <= 0
    "89442404 c1e003 890424",  # size = n, count = 8 n (bits)
    "b802000000 488d3d4e000000 be01000000 31d2 0f05",  # fd = open("/dev/urandom", O_WRONLY)
    "bb02000000 85c0 7833",  # status 2 where fd < 0
    "89c7 be03520840 4889e2 b810000000 0f05",  # ioctl(fd, RNDADDENTROPY, rsp)
    "bb03000000 85c0 7519",  # status 3
    "be07520000 31d2 b810000000 0f05",  # ioctl(fd, RNDRESEEDCRNG)
    "bb04000000 85c0 7502",  # status 4
    "31db",  # status 0
    "89df b83c000000 0f05",  # exit(status)
)


def program() -> bytes:
    """Return the static ELF file (x86-64); it reads the entropy from its standard input."""
    code = bytes.fromhex("".join(_CODE)) + b"/dev/urandom\0"
    begin = _HEADER.size + _SEGMENT.size
    total = begin + len(code)
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    sizes = (_HEADER.size, _SEGMENT.size, 1, 0, 0, 0)
    header = _HEADER.pack(identity, 2, 62, 1, _ADDRESS + begin, _HEADER.size, 0, 0, *sizes)
    segment = _SEGMENT.pack(1, _READ_EXECUTE, 0, _ADDRESS, _ADDRESS, total, total, 0x1000)
    return header + segment + code
