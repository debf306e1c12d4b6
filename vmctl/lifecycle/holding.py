"""What holds a machine: its limits as declared, as libvirt has them and as they are enforced."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from vmctl import errors
from vmctl.host import cgroups, confinement, shaping
from vmctl.host.confinement import Confinement
from vmctl.hypervisor import domains, monitor
from vmctl.hypervisor.connection import Connection
from vmctl.machine import limits
from vmctl.machine.limits import SPEC_KEYS, Limits
from vmctl.machine.model import Machine
from vmctl.machine.observed import Observed

Value = int | str | None

_THROTTLES = {
    "disk_read_iops": "iops_rd",
    "disk_write_iops": "iops_wr",
    "disk_read_rate": "bps_rd",
    "disk_write_rate": "bps_wr",
}
"""What QEMU calls the limits of a disk."""

_FILES = {
    "cpu_weight": ("cpu.weight", "cpu.shares"),
    "cpu_quota": ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "memory_limit": ("memory.max", "memory.limit_in_bytes"),
    "io_weight": ("blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight"),
}
"""Where the kernel keeps a limit: cgroup v2, then v1."""


_SCALED = "; systemd gives bfq less"
"""Its IOWeight goes to 10000 and bfq's to 1000; above 100 it takes an eleventh."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One limit, under its key in the spec; None where it is not set, or nobody could be asked.

    Weights are on cgroup v2's scale, the quota in percent of one CPU, memory and rates in bytes.
    `declared` is in the definition, `libvirt` in the running domain, `enforced` in what enforces
    it; `where` says what that is, with the raw value.
    """

    key: str
    declared: Value = None
    libvirt: Value = None
    enforced: Value = None
    where: str = ""

    @property
    def holds(self) -> bool:
        """True where nothing contradicts what was declared."""
        asked = (self.libvirt, self.enforced) if self.where else ()
        return all(found in (None, self.declared) for found in asked)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """All limits of a machine, and what confines its QEMU process (`pid` 0: none was found)."""

    limits: tuple[Held, ...] = ()
    pid: int = 0
    confinement: Confinement | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        confined = self.confinement or Confinement()
        return {
            "limits": {
                held.key: {
                    "declared": held.declared,
                    "libvirt": held.libvirt,
                    "enforced": held.enforced,
                    "where": held.where,
                }
                for held in self.limits
            },
            "pid": self.pid or None,
            "cgroups": {"version": confined.version, "groups": dict(confined.groups)},
            "namespaces": {name: _whose(own) for name, own in confined.namespaces.items()},
        }


def _whose(own: bool | None) -> str:
    return "unknown" if own is None else "own" if own else "host"


def require(machines: Iterable[Machine], home: str) -> None:
    """Raise HostError for a limit that this host would take and not hold; found by trying.

    `home` is the store's directory, where the disks lie.
    """
    for machine in machines:
        if machine.limits.io_weight:
            _require_weighing(machine.name, home)
        if machine.limits.net_rate and (reason := shaping.objection()):
            raise errors.HostError(
                f"Machine '{machine.name}' wants net_rate, which this host cannot hold: {reason}.",
                hint=f"{shaping.REMEDY}; or leave out net_rate.",
            )


def _require_weighing(name: str, home: str) -> None:
    reason, disk = cgroups.unweighed(home)
    if not reason:
        return
    remedy = "Put the store (VMCTL_HOME) on a disk of the host's own"
    if disk:
        remedy = f"Choose one that weighs: echo bfq | sudo tee /sys/block/{disk}/queue/scheduler"
    raise errors.HostError(
        f"Machine '{name}' wants io_weight, which would do nothing: {reason}.",
        hint=f"{remedy}; or leave out io_weight.",
    )


def look(connection: Connection, observed: Observed) -> Holding:
    """Return what holds a machine; a machine that is off has only what was declared."""
    assert observed.current is not None
    declared = _by_key(observed.current.machine.limits)
    if observed.running is None or not connection.real:
        return Holding(limits=tuple(Held(key=key, declared=declared[key]) for key in declared))
    domain = domains.get(connection, observed.name)
    pid = confinement.qemu_of(domain.UUIDString())
    confined = confinement.of(pid) if pid else Confinement()
    has = _by_key(observed.running.limits)
    asked = any(key in _THROTTLES for key in (*declared, *has))
    enforced = _enforced(confined, monitor.throttles(domain) if asked else {})
    rows = (
        Held(
            key=key,
            declared=declared.get(key),
            libvirt=has.get(key),
            enforced=enforced[key][0],
            where=enforced[key][1],
        )
        for key in SPEC_KEYS.values()
        if key in declared or key in has
    )
    return Holding(limits=tuple(rows), pid=pid or 0, confinement=confined)


def _by_key(given: Limits) -> dict[str, Value]:
    """Return the limits that are set, by the spec's keys and in its units."""
    found: dict[str, Value] = {key: getattr(given, name) for name, key in SPEC_KEYS.items()}
    if given.cpu_shares:
        unified = cgroups.look().unified
        found["cpu_weight"] = limits.weight(given.cpu_shares, unified=unified)
    return {key: value for key, value in found.items() if value}


def _enforced(
    confined: Confinement, throttled: Mapping[str, Mapping[str, int]]
) -> Mapping[str, tuple[Value, str]]:
    """Return each limit as it is enforced, and by what."""
    files = {key: confined.shown(*names) for key, names in _FILES.items()}
    quota = confined.cpu_quota
    found: dict[str, tuple[Value, str]] = {
        "cpu_weight": (confined.cpu_weight, files["cpu_weight"]),
        "cpu_quota": (None if quota is None else round(quota), files["cpu_quota"]),
        "cpuset": (confined.processors or None, "the affinity of QEMU's threads"),
        "memory_limit": (confined.memory_limit, files["memory_limit"]),
        "io_weight": (confined.io_weight, files["io_weight"]),
        "net_rate": (None, "tc on the host's end of each card"),
    }
    weights = [confined.limits.get(name) for name in ("io.bfq.weight", "io.weight")]
    if None not in weights and len(set(weights)) > 1:
        found["io_weight"] = (confined.io_weight, f"{files['io_weight']}{_SCALED}")
    ours = [values for alias, values in throttled.items() if alias.startswith("ua-disk-")]
    for key, name in _THROTTLES.items():
        found[key] = (_common([values[name] for values in ours]), "QEMU's own throttle")
    return found


def _common(values: list[int]) -> Value:
    """Return the value that all disks have, or all of them where they differ."""
    different = sorted(set(values))
    if len(different) > 1:
        return " and ".join(str(value) for value in different)
    return different[0] or None if different else None
