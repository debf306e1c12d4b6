"""Puts GRUB onto a disk image: for BIOS into sectors, for UEFI into a file system of its own.

grub-install needs a block device; here the same is done to a file. Offsets: GRUB's
include/grub/i386/pc/boot.h, kernel.h and diskboot.S.
"""

from __future__ import annotations

import pathlib
import struct

from vmctl import errors, process
from vmctl.deadline import Deadline

BIOS_MODULES = (
    *("biosdisk", "part_gpt", "ext2", "search", "search_fs_uuid", "normal", "configfile"),
    *("linux", "test", "echo", "ls", "cat", "minicmd", "serial", "terminal", "loadenv", "gzio"),
)
"""What GRUB needs until it starts a kernel: reading each from a file would take longer."""

_SECTOR = 512
_BOOT_CODE = 440
_KERNEL_SECTOR = 0x5C
"""In boot.img: the sector (64 bits) at which core.img begins."""

_DRIVE_CHECK = 0x66
"""In boot.img: a jump that grub-install replaces, so that the BIOS's boot drive is believed."""

_NOP = b"\x90\x90"
_BLOCKLIST_START = _SECTOR - 12
"""In the first sector of core.img: where its second sector is (64 bits) …"""

_BLOCKLIST_LENGTH = _SECTOR - 4
"""… and how many sectors follow (16 bits)."""

_LOADERS = {
    "usr/lib/shim/shimx64.efi.signed": "EFI/BOOT/BOOTX64.EFI",
    "usr/lib/shim/mmx64.efi.signed": "EFI/BOOT/mmx64.efi",
    "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": "EFI/BOOT/grubx64.efi",
}
"""Signed programs, and where firmware looks for them on a disk that it has not seen before."""


def boot_code(boot: bytes, core_sector: int) -> bytes:
    """Return the code of boot.img that loads core.img from `core_sector` of the same disk."""
    if len(boot) != _SECTOR:
        raise ValueError(f"boot.img has {len(boot)} bytes, not {_SECTOR}")
    code = bytearray(boot)
    struct.pack_into("<Q", code, _KERNEL_SECTOR, core_sector)
    code[_DRIVE_CHECK : _DRIVE_CHECK + 2] = _NOP
    return bytes(code[:_BOOT_CODE])


def core(image: bytes, sector: int) -> bytes:
    """Return core.img as it lies on the disk from `sector`, in one piece."""
    sectors = -(-len(image) // _SECTOR)
    if sectors < 2:
        raise ValueError("core.img is too short")
    code = bytearray(image.ljust(sectors * _SECTOR, b"\0"))
    struct.pack_into("<Q", code, _BLOCKLIST_START, sector + 1)
    struct.pack_into("<H", code, _BLOCKLIST_LENGTH, sectors - 1)
    return bytes(code)


def early_config(root: str) -> str:
    """Return what GRUB does first, by BIOS and by UEFI: find the file system with UUID `root`."""
    return (
        f"search.fs_uuid {root} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
    )


def menu(release: str, root: str, cmdline: str) -> str:
    """Return the first grub.cfg; update-grub writes its own when a kernel is installed."""
    return (
        "set timeout=0\n"
        f"menuentry 'Debian GNU/Linux' {{\n"
        f"\tlinux /boot/vmlinuz-{release} root=UUID={root} {cmdline}\n"
        f"\tinitrd /boot/initrd.img-{release}\n"
        "}\n"
    )


def efi_system(
    path: pathlib.Path, size: int, tree: pathlib.Path, root: str, deadline: Deadline
) -> None:
    """Make the EFI system partition as the file `path`: a FAT file system with signed loaders.

    Raises HostError where mtools or a loader is missing.
    """
    path.touch()
    with path.open("r+b") as stream:
        stream.truncate(size)
    environment = {"MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": "/dev/null"}

    def mtool(*words: str | pathlib.Path) -> None:
        process.run(words, deadline, env=environment)

    mtool("mformat", "-i", path, "-T", str(size // _SECTOR), "-v", "EFI", "-N", "45464920", "::")
    mtool("mmd", "-i", path, "::EFI", "::EFI/BOOT", "::EFI/debian")
    for source, target in _LOADERS.items():
        if not (tree / source).is_file():
            raise errors.HostError(f"The distribution's packages do not hold '{source}'.")
        mtool("mcopy", "-i", path, tree / source, f"::{target}")
    config = path.with_name("efi-grub.cfg")
    config.write_text(early_config(root))
    mtool("mcopy", "-i", path, config, "::EFI/debian/grub.cfg")
