"""What a QEMU process takes of the host, read from /proc."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable

_PROC = pathlib.Path("/proc")
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ ", re.IGNORECASE)
_KIB = 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """A process: CPU seconds so far, resident bytes in all and without the guest's own memory.

    `cpus` are those its threads may run on, as Linux writes it; empty where it cannot be read.
    """

    cpu_seconds: float
    resident: int
    beyond_guest: int | None
    cpus: str
    cgroups: tuple[str, ...]
    argv: tuple[str, ...]


def of_guest(name: str, memory: int) -> Footprint | None:
    """Return the footprint of the QEMU process of a domain; `memory` is the guest's, in bytes."""
    pid = _find(name)
    if pid is None:
        return None
    place = _PROC / str(pid)
    try:
        argv = tuple(place.joinpath("cmdline").read_bytes().decode("utf-8", "replace").split("\0"))
        status = place.joinpath("status").read_text()
        return Footprint(
            cpu_seconds=_cpu_seconds(place.joinpath("stat").read_text()),
            resident=_field(status, "VmRSS") * _KIB,
            beyond_guest=_beyond(place, memory),
            cpus=_word(status, "Cpus_allowed_list"),
            cgroups=tuple(place.joinpath("cgroup").read_text().split()),
            argv=argv[:-1],
        )
    except (OSError, ValueError, IndexError):
        return None


def _find(name: str) -> int | None:
    wanted = f"guest={name},".encode()
    for entry in os.listdir(_PROC):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                words = (_PROC / entry / "cmdline").read_bytes().split(b"\0")
                if b"-name" in words and words[words.index(b"-name") + 1].startswith(wanted):
                    return int(entry)
    return None


def _cpu_seconds(stat: str) -> float:
    # The name, in brackets, may hold anything; utime and stime are fields 14 and 15 (proc(5)).
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _field(status: str, key: str) -> int:
    return int(_word(status, key).split()[0])


def _word(status: str, key: str) -> str:
    found = re.search(rf"^{key}:\s*(.*)$", status, re.MULTILINE)
    return found[1].strip() if found else ""


def _beyond(place: pathlib.Path, memory: int) -> int | None:
    """Return the resident bytes of all mappings but the guest's memory; None without the right."""
    try:
        with place.joinpath("smaps").open() as lines:
            return beyond_guest(lines, memory)
    except OSError:
        return None


def beyond_guest(smaps: Iterable[str], memory: int) -> int:
    """Return the resident bytes of all mappings but the largest one of the guest's size."""
    sizes: list[tuple[int, int]] = []
    for line in smaps:
        if _MAPPING.match(line):
            sizes.append((0, 0))
        elif line.startswith("Size:"):
            sizes[-1] = (int(line.split()[1]) * _KIB, sizes[-1][1])
        elif line.startswith("Rss:"):
            sizes[-1] = (sizes[-1][0], int(line.split()[1]) * _KIB)
    guest = max((rss for size, rss in sizes if size == memory), default=0)
    return sum(rss for _size, rss in sizes) - guest
