from __future__ import annotations

import struct

import pytest

from vmctl.images import grub


def test_boot_sector_knows_where_the_rest_is() -> None:
    code = grub.boot_code(bytes([0xEB]) + bytes(0x65) + b"\xeb\x05" + bytes(512 - 0x68), 2048)
    assert len(code) == 440, "the partition table follows"
    assert code[0] == 0xEB
    assert struct.unpack_from("<Q", code, 0x5C) == (2048,)
    assert code[0x66:0x68] == b"\x90\x90"


@pytest.mark.parametrize("length", [0, 511, 513])
def test_boot_sector_of_another_size_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"{length} bytes"):
        grub.boot_code(bytes(length), 2048)


def test_core_lists_its_own_sectors() -> None:
    core = grub.core(b"x" * 1300, 2048)
    assert len(core) == 3 * 512
    assert struct.unpack_from("<QH", core, 500) == (2049, 2)
    assert core[512:1300] == b"x" * 788


def test_core_without_a_second_sector_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        grub.core(bytes(512), 2048)


def test_menu_starts_the_kernel_with_the_recipes_words() -> None:
    text = grub.menu("6.1.0-1-amd64", "1234", "rw console=ttyS0")
    assert "linux /boot/vmlinuz-6.1.0-1-amd64 root=UUID=1234 rw console=ttyS0\n" in text
    assert "initrd /boot/initrd.img-6.1.0-1-amd64\n" in text
    assert "timeout=0" in text
