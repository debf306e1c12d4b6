"""What of the host a machine may take: its share and its most. Pure."""

from __future__ import annotations

import dataclasses

PERIOD = 100_000
"""Microseconds in which a quota is counted: the kernel's own default."""

SHARES_PER_WEIGHT = 10.24
"""cgroup v1's cpu.shares has 1024 where v2's cpu.weight has 100."""

NO_MEMORY_LIMIT = 9007199254740991
"""Libvirt's word for "unlimited", in KiB (VIR_DOMAIN_MEMORY_PARAM_UNLIMITED)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the host gives the machine; 0 or empty: nothing is limited.

    `cpu_shares` is libvirt's number, a weight of 1 to 10000 on cgroup v2 and 10.24 times that on
    v1. `cpu_quota` in percent of one CPU, for the whole guest. `memory` in bytes, QEMU's own part
    included. Requests and bytes each second hold for each disk, `net_rate` (bytes each second) for
    each card and direction.
    """

    cpu_shares: int = 0
    cpu_quota: int = 0
    cpuset: str = ""
    memory: int = 0
    io_weight: int = 0
    disk_read_iops: int = 0
    disk_write_iops: int = 0
    disk_read_rate: int = 0
    disk_write_rate: int = 0
    net_rate: int = 0

    @property
    def quota_microseconds(self) -> int:
        """The quota as libvirt has it: microseconds in each PERIOD."""
        return self.cpu_quota * PERIOD // 100

    @property
    def disk(self) -> dict[str, int]:
        """The limits of each disk under libvirt's names, those left out that are not set."""
        named = {
            "read_iops_sec": self.disk_read_iops,
            "write_iops_sec": self.disk_write_iops,
            "read_bytes_sec": self.disk_read_rate,
            "write_bytes_sec": self.disk_write_rate,
        }
        return {name: value for name, value in named.items() if value}


NO_LIMITS = Limits()
"""What a machine has unless its spec says otherwise."""


SPEC_KEYS = {
    "cpu_shares": "cpu_weight",
    "cpu_quota": "cpu_quota",
    "cpuset": "cpuset",
    "memory": "memory_limit",
    "io_weight": "io_weight",
    "disk_read_iops": "disk_read_iops",
    "disk_write_iops": "disk_write_iops",
    "disk_read_rate": "disk_read_rate",
    "disk_write_rate": "disk_write_rate",
    "net_rate": "net_rate",
}
"""The fields of Limits, and what they are called in a spec."""


def shares(weight: int, *, unified: bool) -> int:
    """Return libvirt's number for a weight of 1 to 10000; `unified` is cgroup v2 alone."""
    return weight if unified or not weight else max(2, round(weight * SHARES_PER_WEIGHT))


def weight(cpu_shares: int, *, unified: bool) -> int:
    """Return the weight of 1 to 10000 behind libvirt's number."""
    return cpu_shares if unified else round(cpu_shares / SHARES_PER_WEIGHT)


def cpus_of(cpuset: str) -> frozenset[int]:
    """Return the processors that a list such as 0-3,8 names."""
    found: set[int] = set()
    for part in cpuset.split(",") if cpuset else ():
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def cpuset_of(cpus: frozenset[int]) -> str:
    """Return processors as a list in libvirt's own form: 0-3,8."""
    parts: list[str] = []
    left = sorted(cpus)
    while left:
        first = last = left.pop(0)
        while left and left[0] == last + 1:
            last = left.pop(0)
        parts.append(str(first) if first == last else f"{first}-{last}")
    return ",".join(parts)
