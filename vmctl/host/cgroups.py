"""Which control groups this host has for libvirt to put machines into, and what weighs disk I/O.

File names are the kernel's: Documentation/admin-guide/cgroup-v1, cgroup-v2.rst, block/bfq-iosched.
"""

from __future__ import annotations

import os
import pathlib
import re

from vmctl.host import reading
from vmctl.host.facts import Cgroups

_HOST = pathlib.Path("/")
_KNOWN = ("cpu", "cpuset", "memory", "blkio")
_SYS_RESOURCE = 1 << 24
"""CAP_SYS_RESOURCE in the masks of /proc/PID/status (linux/capability.h)."""

_DEEPEST = 8


def look(root: pathlib.Path = _HOST) -> Cgroups:
    """Return the controllers that can be written to, and the processors they may hand out."""
    versions: dict[str, int] = {}
    effective = ""
    for row in reading.text(root / "proc/self/mounts").splitlines():
        fields = row.split(" ")
        if len(fields) < 4 or "ro" in fields[3].split(","):
            continue
        place = root / fields[1].lstrip("/")
        if fields[2] == "cgroup":
            versions |= {name: 1 for name in fields[3].split(",") if name in _KNOWN}
            effective = effective or reading.line(place / "cpuset.effective_cpus")
        elif fields[2] == "cgroup2":
            for word in reading.line(place / "cgroup.controllers").split():
                name = "blkio" if word == "io" else word
                if name in _KNOWN:
                    versions.setdefault(name, 2)
            effective = effective or reading.line(place / "cpuset.cpus.effective")
    online = reading.line(root / "sys/devices/system/cpu/online")
    return Cgroups(versions=versions, processors=effective or online)


def may_lock_memory(root: pathlib.Path = _HOST) -> bool:
    """Tell whether anybody here can have CAP_SYS_RESOURCE; a container's engine takes it away."""
    for row in reading.text(root / "proc/self/status").splitlines():
        key, _, value = row.partition(":")
        if key == "CapBnd" and re.fullmatch("[0-9a-f]{1,32}", value.strip()):
            return bool(int(value, 16) & _SYS_RESOURCE)
    return False


def unweighed(path: str, *, root: pathlib.Path = _HOST) -> tuple[str, str]:
    """Return why a weight of I/O would not hold for files at `path`, and the disk that is to blame.

    Both are '' where it holds; the disk alone where it cannot be told.
    """
    device = _device(path)
    disks = _disks(root, device) if device else []
    if not disks:
        return f"the disk below '{path}' cannot be told, so neither can its I/O scheduler", ""
    for disk in disks:
        queue = root / "sys/class/block" / disk / "queue"
        offered = reading.line(queue / "scheduler")
        if "[bfq]" not in offered and not _by_cost(root, disk):
            used = re.search(r"\[([a-z-]+)\]", offered)
            reason = f"disk '{disk}' below '{path}' has the I/O scheduler '{_name(used)}'"
            return reason, disk
    return "", ""


def _name(found: re.Match[str] | None) -> str:
    return found[1] if found else "none"


def _device(path: str) -> str:
    """Return the number of the device that a file lies on, '' where it is no disk's."""
    try:
        number = os.stat(path).st_dev
    except OSError:
        return ""
    return f"{os.major(number)}:{os.minor(number)}" if os.major(number) else ""


def _disks(root: pathlib.Path, device: str) -> list[str]:
    """Return the whole disks below a device: a partition's disk, the slaves of a mapped one."""
    try:
        place = (root / "sys/dev/block" / device).resolve(strict=True)
    except OSError:
        return []
    if (place / "partition").exists():
        place = place.parent
    waiting, found = [(place.name, 0)], []
    while waiting:
        name, depth = waiting.pop()
        below = reading.names(root / "sys/class/block" / name / "slaves")
        if below and depth < _DEEPEST:
            waiting += [(_whole(root, each), depth + 1) for each in below]
        else:
            found.append(name)
    return sorted(set(found))


def _whole(root: pathlib.Path, name: str) -> str:
    place = (root / "sys/class/block" / name).resolve()
    return place.parent.name if (place / "partition").exists() else name


def _by_cost(root: pathlib.Path, disk: str) -> bool:
    """Tell whether iocost weighs a disk: cgroup v2's io.weight, unless bfq's file takes its place.

    Libvirt writes io.bfq.weight where there is one, else io.weight.
    """
    number = reading.line(root / "sys/class/block" / disk / "dev")
    top = root / "sys/fs/cgroup"
    rows = reading.text(top / "io.cost.qos").splitlines()
    switched_on = any(row.startswith(f"{number} ") and "enable=1" in row for row in rows)
    return switched_on and "bfq" not in reading.line(
        root / "sys/class/block" / disk / "queue/scheduler"
    )
