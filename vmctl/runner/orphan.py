"""The last resort: ends the QEMU of a run whose libvirt is gone and does not come back."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from collections.abc import Iterator

_PROC = pathlib.Path("/proc")


def kill(name: str) -> None:
    """Kill the QEMU process of a domain, which libvirt names in its arguments; fine for none."""
    for process in processes(name):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)


def processes(name: str) -> Iterator[int]:
    """Yield the processes that are the QEMU of a domain of this name."""
    wanted = f"guest={name},".encode()
    for entry in os.listdir(_PROC):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                words = (_PROC / entry / "cmdline").read_bytes().split(b"\0")
                if b"-name" in words and words[words.index(b"-name") + 1].startswith(wanted):
                    yield int(entry)
