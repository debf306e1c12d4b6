"""What confines a process: its control groups with their limits, and its namespaces.

File names are the kernel's: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst, namespaces(7).
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping

from vmctl.host import reading

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_HOST = pathlib.Path("/")
_UNIFIED = "unified"
_NO_LIMIT_V1 = 1 << 62
"""Version 1 says "no limit" with a number near 2^63, rounded down to whole pages."""

_SHARES_PER_WEIGHT = 10.24
"""cpu.shares has 1024 where cpu.weight has 100."""

_IO_WEIGHTS = ("blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight")

_FILES_V1 = {
    "cpu": ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "memory": ("memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.usage_in_bytes"),
    "blkio": ("blkio.bfq.weight", "blkio.weight"),
}
_FILES_V2 = (
    *("cpu.weight", "cpu.max", "cpuset.cpus", "cpuset.mems", "memory.max", "memory.high"),
    *("memory.current", "io.weight", "io.bfq.weight", "io.max", "pids.max"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What confines one process; `namespaces` says which are its own (None: may not be looked at).

    `groups` has the group by controller ('unified' for version 2), `limits` the files in them as
    the kernel shows them. `cpu_weight` is in version 2's scale (100 is usual), `cpu_quota` in
    percent of one CPU, `memory_limit` in bytes; None: no limit. `processors` are those that its
    threads may run on, as 0-3,8.
    """

    version: str = ""
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
    limits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    namespaces: Mapping[str, bool | None] = dataclasses.field(default_factory=dict)
    processors: str = ""

    @property
    def cpu_weight(self) -> int | None:
        """Share of the CPU, in the scale of cgroup version 2."""
        if "cpu.weight" in self.limits:
            return _number(self.limits["cpu.weight"])
        shares = _number(self.limits.get("cpu.shares", ""))
        return None if shares is None else max(1, round(shares / _SHARES_PER_WEIGHT))

    @property
    def cpu_quota(self) -> float | None:
        """Most CPU time, in percent of one CPU."""
        if "cpu.max" in self.limits:
            quota, _, period = self.limits["cpu.max"].partition(" ")
        else:
            quota = self.limits.get("cpu.cfs_quota_us", "")
            period = self.limits.get("cpu.cfs_period_us", "")
        most, each = _number(quota), _number(period)
        return 100 * most / each if most is not None and most > 0 and each else None

    @property
    def io_weight(self) -> int | None:
        """Share of the disk."""
        for name in _IO_WEIGHTS:
            words = self.limits.get(name, "").partition(";")[0].split()
            if words:
                return _number(words[-1])  # version 2 says "default 100", then devices
        return None

    def shown(self, *names: str) -> str:
        """Return those of these files that are there, with their content."""
        there = [f"{name} {self.limits[name]}" for name in names if name in self.limits]
        return ", ".join(there)

    @property
    def memory_limit(self) -> int | None:
        """Most memory, in bytes."""
        text = self.limits.get("memory.max") or self.limits.get("memory.limit_in_bytes", "")
        most = _number(text)
        return None if most is None or most >= _NO_LIMIT_V1 else most


def of(pid: int, *, root: pathlib.Path = _HOST) -> Confinement:
    """Return what confines a process; what cannot be read is left out, and nothing is raised.

    For a process of libvirt's the groups are those of the whole guest: QEMU's own threads sit in
    a group `emulator` below it.
    """
    groups = _groups(reading.text(root / f"proc/{pid}/cgroup"))
    mounts = _mounts(reading.text(root / "proc/self/mounts"))
    limits: dict[str, str] = {}
    for controller, path in groups.items():
        if controller in mounts:
            place = root / mounts[controller].lstrip("/") / path.lstrip("/")
            names = _FILES_V2 if controller == _UNIFIED else _FILES_V1.get(controller, ())
            limits |= _contents(place, names)
    return Confinement(
        version=_version(mounts),
        groups=groups,
        limits=limits,
        namespaces={name: _own_namespace(root, pid, name) for name in NAMESPACES},
        processors=_processors(root, pid),
    )


def _contents(place: pathlib.Path, names: tuple[str, ...]) -> dict[str, str]:
    """Return the files of a whole guest's group.

    Under systemd its limits are in two groups: weights in the scope, which systemd sets, and all
    else in a group 'libvirt' below, which is libvirt's own.
    """
    found: dict[str, str] = {}
    for name in names:
        value, below = (reading.text(each / name).strip() for each in (place, place / "libvirt"))
        if below and "weight" not in name and "shares" not in name and not _unlimited(below):
            value = below
        if value:
            found[name] = "; ".join(value.splitlines())
    return found


def _unlimited(text: str) -> bool:
    first = text.split(maxsplit=1)[0]
    number = _number(first)
    return first == "max" or (number is not None and (number < 0 or number >= _NO_LIMIT_V1))


def _processors(root: pathlib.Path, pid: int) -> str:
    """Return the processors that all threads may run on; several lists where they differ."""
    found = set()
    for thread in reading.names(root / f"proc/{pid}/task"):
        for row in reading.text(root / f"proc/{pid}/task/{thread}/status").splitlines():
            key, _, value = row.partition(":")
            if key == "Cpus_allowed_list":
                found.add(value.strip())
    return " and ".join(sorted(found))


def _version(mounts: Mapping[str, str]) -> str:
    if _UNIFIED not in mounts:
        return "v1" if mounts else ""
    return "v1 and v2 (hybrid)" if len(mounts) > 1 else "v2"


def _groups(text: str) -> dict[str, str]:
    """Return a process's group by controller, without libvirt's subgroup for QEMU's own threads."""
    found: dict[str, str] = {}
    for row in text.splitlines():
        _, _, rest = row.partition(":")
        controllers, _, path = rest.partition(":")
        whole = re.sub(r"/(libvirt/)?emulator$", "", path) or "/"
        for controller in controllers.split(",") if controllers else (_UNIFIED,):
            found[controller] = whole
    return {name: path for name, path in found.items() if not name.startswith("name=")}


def _mounts(text: str) -> dict[str, str]:
    """Return where the controllers of both versions are mounted."""
    found: dict[str, str] = {}
    for row in text.splitlines():
        fields = row.split(" ")
        if len(fields) < 4:  # a line that is cut off
            continue
        _device, place, kind, options = fields[:4]
        if kind == "cgroup2":
            found.setdefault(_UNIFIED, place)
        elif kind == "cgroup":
            for option in options.split(","):
                if option in _FILES_V1 or option in ("cpuacct", "devices", "freezer", "pids"):
                    found.setdefault(option, place)
    return found


def _own_namespace(root: pathlib.Path, pid: int, name: str) -> bool | None:
    """Tell whether a process has a namespace of its own, compared with this one."""
    try:
        theirs = os.readlink(root / f"proc/{pid}/ns/{name}")
        ours = os.readlink(root / f"proc/self/ns/{name}")
    except OSError:
        return None
    return theirs != ours


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d+", text.strip()) else None


def qemu_of(uuid: str, *, root: pathlib.Path = _HOST) -> int | None:
    """Return the process that runs the guest with this UUID, or None."""
    wanted = f"\0-uuid\0{uuid}\0".encode()
    with os.scandir(root / "proc") as entries:
        for entry in entries:
            if entry.name.isdigit() and wanted in reading.raw(
                root / "proc" / entry.name / "cmdline"
            ):
                return int(entry.name)
    return None
