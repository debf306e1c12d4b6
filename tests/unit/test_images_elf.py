from __future__ import annotations

import pathlib
import struct
import sys

import pytest

from vmctl.images import elf


def test_reads_a_real_program() -> None:
    program = elf.Elf(pathlib.Path(sys.executable).resolve().read_bytes())
    assert any(name.startswith("libc.so") for name in program.needed)
    assert program.interpreter.startswith("/lib")
    assert program.section(".interp") == program.interpreter.encode() + b"\0"
    assert program.section(".no-such-section") == b""
    assert not program.starts_by_pvh


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 20, b"\x7fELF\x01\x01" * 20])
def test_refuses_what_is_no_elf_file(data: bytes) -> None:
    with pytest.raises(elf.NotElfError):
        elf.Elf(data)


def test_a_file_cut_anywhere_is_read_or_refused_but_nothing_else() -> None:
    whole = pathlib.Path(sys.executable).resolve().read_bytes()
    for size in [*range(0, 2000, 37), len(whole) // 2, len(whole) - 64]:
        try:
            program = elf.Elf(whole[:size])
            assert isinstance(program.needed, tuple)
            assert isinstance(program.section(".modinfo"), bytes)
            assert program.starts_by_pvh is False
        except elf.NotElfError:
            pass


def kernel(note_name: bytes, note_type: int) -> bytes:
    """Return an ELF file with one program header: a note."""
    note = struct.pack("<III", len(note_name), 8, note_type) + note_name.ljust(4, b"\0") + bytes(8)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0
    )
    program = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4)
    return header + program + note


def test_knows_a_kernel_that_starts_by_pvh() -> None:
    assert elf.Elf(kernel(b"Xen\0", 18)).starts_by_pvh
    assert not elf.Elf(kernel(b"Xen\0", 1)).starts_by_pvh
    assert not elf.Elf(kernel(b"GNU\0", 18)).starts_by_pvh
