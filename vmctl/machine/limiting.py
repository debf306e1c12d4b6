"""From `resources` to limits: scaled for this host, and refused where it cannot hold them. Pure."""

from __future__ import annotations

import dataclasses
from typing import NoReturn

from vmctl import errors
from vmctl.host.facts import HostFacts
from vmctl.machine import limits
from vmctl.machine.first_boot import Refuse
from vmctl.machine.limits import Limits
from vmctl.spec.model import MachineSpec

_CONTROLLERS = {
    "cpu_weight": "cpu",
    "cpu_quota": "cpu",
    "memory_limit": "memory",
    "io_weight": "blkio",
}
"""The control group that a limit takes; libvirt has none in an ordinary user's session.

A cpuset holds without: libvirt sets the affinity of QEMU's threads as well.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Means:
    """What holds limits: the host, whether libvirt is an ordinary user's (`session`), the disks."""

    facts: HostFacts
    session: bool = False
    disks: int = 0


def resolve(spec: MachineSpec, means: Means, refuse: Refuse) -> Limits:
    """Return the limits of a machine.

    Raises SpecError for one that has nothing to limit, HostError for one that the host cannot hold.
    """
    asked = spec.resources
    if asked is None:
        return limits.NO_LIMITS
    if asked.of_disks and not means.disks:
        message = f"{asked.of_disks[0]} is set, and the machine has no disk of its own"
        hint = "add one: disks: [{name: data, size: 1GiB}]"
        raise refuse(("resources", asked.of_disks[0]), message, hint)
    for key in (*_CONTROLLERS, "net_rate"):
        if getattr(asked, key) is None:
            continue
        if means.session:
            _refuse_in_session(spec.name, key)
        _require(spec.name, key, means.facts)
    cpus = limits.cpus_of(asked.cpuset or "")
    _require_processors(spec.name, asked.cpuset or "", cpus, means.facts)
    unified = means.facts.cgroups.unified
    return Limits(
        cpu_shares=limits.shares(asked.cpu_weight or 0, unified=unified),
        cpu_quota=asked.cpu_quota or 0,
        cpuset=limits.cpuset_of(cpus),
        memory=asked.memory_limit or 0,
        io_weight=asked.io_weight or 0,
        disk_read_iops=asked.disk_read_iops or 0,
        disk_write_iops=asked.disk_write_iops or 0,
        disk_read_rate=asked.disk_read_rate or 0,
        disk_write_rate=asked.disk_write_rate or 0,
        net_rate=asked.net_rate or 0,
    )


def _refuse_in_session(name: str, key: str) -> NoReturn:
    what = "control groups" if key in _CONTROLLERS else "the network of the host"
    raise errors.HostError(
        f"Machine '{name}' wants {key}, which takes {what}, and an ordinary user's libvirt "
        "(qemu:///session) has no hold of that.",
        hint=f"Leave out {key}, or run as root: sudo vmctl up …; cpuset and the limits of disks "
        "hold without.",
    )


def _require(name: str, key: str, facts: HostFacts) -> None:
    controller = _CONTROLLERS.get(key, "")
    if controller and controller not in facts.cgroups.versions:
        raise errors.HostError(
            f"Machine '{name}' wants {key}, and this host has no control group '{controller}' "
            "that can be written to.",
            hint=f"Mount it, in a container with --privileged or a writable /sys/fs/cgroup; "
            f"or leave out {key}.",
        )
    if key == "memory_limit" and not facts.memory_locking:
        raise errors.HostError(
            f"Machine '{name}' wants memory_limit; with it libvirt also says how much memory QEMU "
            "may lock, which takes CAP_SYS_RESOURCE, and nobody on this system can have that.",
            hint="Give the container the capability (--cap-add SYS_RESOURCE), or leave out "
            "memory_limit.",
        )


def _require_processors(name: str, cpuset: str, cpus: frozenset[int], facts: HostFacts) -> None:
    there = limits.cpus_of(facts.cgroups.processors) or frozenset(range(facts.cpu.count))
    absent = cpus - there
    if absent:
        raise errors.HostError(
            f"Machine '{name}' wants cpuset '{cpuset}', and this host does not have "
            f"{'processor' if len(absent) == 1 else 'processors'} {limits.cpuset_of(absent)}.",
            hint=f"It has {limits.cpuset_of(there)}: write that in the spec, or a part of it.",
        )
