"""Names the host: figures mean nothing without it."""

from __future__ import annotations

import os
import pathlib
import platform
from typing import Any

from vmctl.host.facts import HostFacts
from vmctl.host.verdict import Verdict
from vmctl.hypervisor.connection import Connection
from vmctl.lab import caveat
from vmctl.store.storage import Storage

_SYS = pathlib.Path("/sys")


def describe(
    facts: HostFacts, kvm: Verdict, storage: Storage, connection: Connection | None
) -> dict[str, Any]:
    """Return what stands above the tables, as plain data."""
    versions = connection.versions() if connection is not None else None
    return {
        "name": platform.node(),
        "cpu": facts.cpu.model,
        "cores": os.cpu_count() or 1,
        "usable_cores": sorted(os.sched_getaffinity(0)),
        "memory_bytes": facts.memory_total,
        "kernel": facts.kernel,
        "virtual": facts.virtual,
        caveat.MARK: facts.emulated,
        "kvm": "usable" if kvm.usable else "not usable",
        "kvm_cause": "" if kvm.usable else kvm.cause,
        "qemu": _version(versions.qemu) if versions else "",
        "libvirt": _version(versions.libvirt) if versions else "",
        "connection": connection.uri if connection is not None else "",
        "python": platform.python_version(),
        "governor": _read("devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "smt": _read("devices/system/cpu/smt/active"),
        "numa_nodes": len(list(_SYS.glob("devices/system/node/node[0-9]*"))),
        "transparent_hugepages": _chosen(_read("kernel/mm/transparent_hugepage/enabled")),
        "clocksource": _read("devices/system/clocksource/clocksource0/current_clocksource"),
        "cgroups": _cgroups(),
        "store_bypasses_page_cache": storage.direct,
        "aio": storage.aio,
        "load_before": load(),
    }


def load() -> list[float]:
    """Return the load average of the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def _version(number: tuple[int, int, int]) -> str:
    return ".".join(map(str, number))


def _read(path: str) -> str:
    try:
        return (_SYS / path).read_text().strip()
    except OSError:
        return ""


def _chosen(text: str) -> str:
    return text.partition("[")[2].partition("]")[0] or text


def _cgroups() -> str:
    if (_SYS / "fs/cgroup/cgroup.controllers").exists():
        return "v2"
    return "v1 and v2" if (_SYS / "fs/cgroup/unified").exists() else "v1"
