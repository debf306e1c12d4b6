"""The root file system of an image, as a directory: what a container has in common with a guest."""

from __future__ import annotations

import pathlib

from vmctl import process
from vmctl.deadline import Deadline
from vmctl.images import debian
from vmctl.lab import cpio, starter
from vmctl.lab.job import PLACE
from vmctl.machine.model import Image

_SECONDS = 300.0


def unpack(image: Image, directory: pathlib.Path) -> None:
    """Make `directory`/rootfs from an image, with the places that a bundle mounts on.

    Raises RefusedError, ProgramError.
    """
    rootfs = directory / "rootfs"
    rootfs.mkdir(parents=True)
    if starter.kind(image.name).whole_in_initrd:
        for path, entry in cpio.entries(pathlib.Path(image.initrd).read_bytes()):
            cpio.place(rootfs, path, entry)
    else:
        _dump(image, rootfs)
    (rootfs / PLACE).mkdir()
    (rootfs / "disk").write_bytes(b"")


def _dump(image: Image, rootfs: pathlib.Path) -> None:
    """Take the files out of the disk that our own builder has made, without mounting it."""
    raw = rootfs.with_suffix(".raw")
    deadline = Deadline.after(_SECONDS)
    convert = ("qemu-img", "convert", "-f", image.disk_format.value, "-O", "raw")
    try:
        process.run([*convert, image.disk, raw], deadline)
        system = f"{raw}?offset={debian.root_offset()}"
        process.run(["debugfs", "-R", f'rdump / "{rootfs}"', system], deadline)
    finally:
        raw.unlink(missing_ok=True)
