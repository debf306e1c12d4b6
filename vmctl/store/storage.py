"""What the file system below the store can do, found by trying."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import pathlib

_IO_URING_SETUP = 425
_IO_URING_PARAMS_BYTES = 120


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """Whether files here can bypass the page cache, and whether the kernel offers io_uring."""

    direct: bool = False
    io_uring: bool = False

    @property
    def aio(self) -> str:
        """How QEMU should reach files: io_uring, else native (needs O_DIRECT), else threads."""
        if self.io_uring:
            return "io_uring"
        return "native" if self.direct else "threads"


def examine(directory: pathlib.Path) -> Storage:
    """Try O_DIRECT on the file system of `directory` (or its nearest parent) and io_uring."""
    while not directory.is_dir():
        directory = directory.parent
    return Storage(direct=_direct_works(directory), io_uring=_io_uring_works())


def _direct_works(directory: pathlib.Path) -> bool:
    # O_TMPFILE: the file has no name, so nothing is left behind by a kill.
    try:
        descriptor = os.open(
            directory, os.O_RDWR | os.O_TMPFILE | os.O_DIRECT | os.O_CLOEXEC, 0o600
        )
    except OSError:
        return False
    os.close(descriptor)
    return True


def _io_uring_works() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    parameters = ctypes.create_string_buffer(_IO_URING_PARAMS_BYTES)
    descriptor = libc.syscall(_IO_URING_SETUP, 1, parameters)
    if descriptor < 0:
        return False
    with contextlib.suppress(OSError):
        os.close(descriptor)
    return True
