"""What running domains use: counters of all of them with one call."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import libvirt

from vmctl.hypervisor import failures
from vmctl.hypervisor.connection import Connection

_WANTED = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
_KIB = 1024
_NANOSECONDS = 1e9


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DiskCounters:
    """What one disk did since the guest started; `device` is libvirt's name (sda, vda)."""

    device: str
    read_requests: int
    read_bytes: int
    write_requests: int
    written_bytes: int
    allocated: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NicCounters:
    """What one network card did since the guest started, as the guest sees it.

    `device` is the host's end of it (vnet0). Cards on user networking have none and are not here.
    """

    device: str
    received_bytes: int
    received_packets: int
    sent_bytes: int
    sent_packets: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """One running domain at one moment.

    `at` is on the monotonic clock, `cpu_seconds` all that QEMU used, memory in bytes: `memory` is
    what the guest has now, `used` what it says it needs of that, `resident` what QEMU's process
    takes of the host's. None: not known.
    """

    name: str
    uuid: str
    id: int
    at: float
    cpu_seconds: float | None
    cpus: int
    memory: int | None
    used: int | None
    resident: int | None
    disks: tuple[DiskCounters, ...]
    nics: tuple[NicCounters, ...]


def counters(connection: Connection) -> list[Counters]:
    """Return the counters of all running domains, whosoever they are, with one call.

    NOWAIT: a domain that is busy with a long job would block the call for 30 s; what cannot be
    known without waiting is left out.
    """
    flags = (
        libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    )
    if not connection.real:
        return []
    with failures.translated("ask libvirt what the machines use"):
        found = connection.handle.getAllDomainStats(_WANTED, flags)
    now = time.monotonic()
    return [_counters(domain, numbers, now) for domain, numbers in found]


def _counters(domain: libvirt.virDomain, numbers: dict[str, Any], now: float) -> Counters:
    cpu = numbers.get("cpu.time")
    return Counters(
        name=domain.name(),
        uuid=domain.UUIDString(),
        id=domain.ID(),
        at=now,
        cpu_seconds=None if cpu is None else cpu / _NANOSECONDS,
        cpus=int(numbers.get("vcpu.current", 1)),
        memory=_bytes(numbers.get("balloon.current")),
        used=_used(numbers),
        resident=_bytes(numbers.get("balloon.rss")),
        disks=tuple(_disk(numbers, index) for index in range(numbers.get("block.count", 0))),
        nics=tuple(
            _nic(numbers, index)
            for index in range(numbers.get("net.count", 0))
            if f"net.{index}.name" in numbers
        ),
    )


def _used(numbers: dict[str, Any]) -> int | None:
    """Return what the guest itself says it uses; only a virtio balloon tells."""
    available, usable = numbers.get("balloon.available"), numbers.get("balloon.usable")
    return None if available is None or usable is None else max(0, available - usable) * _KIB


def _bytes(kib: int | None) -> int | None:
    return None if kib is None else kib * _KIB


def _disk(numbers: dict[str, Any], index: int) -> DiskCounters:
    own = f"block.{index}"
    return DiskCounters(
        device=str(numbers.get(f"{own}.name", index)),
        read_requests=numbers.get(f"{own}.rd.reqs", 0),
        read_bytes=numbers.get(f"{own}.rd.bytes", 0),
        write_requests=numbers.get(f"{own}.wr.reqs", 0),
        written_bytes=numbers.get(f"{own}.wr.bytes", 0),
        allocated=numbers.get(f"{own}.allocation", 0),
    )


def _nic(numbers: dict[str, Any], index: int) -> NicCounters:
    own = f"net.{index}"
    return NicCounters(
        device=str(numbers.get(f"{own}.name", index)),
        received_bytes=numbers.get(f"{own}.rx.bytes", 0),
        received_packets=numbers.get(f"{own}.rx.pkts", 0),
        sent_bytes=numbers.get(f"{own}.tx.bytes", 0),
        sent_packets=numbers.get(f"{own}.tx.pkts", 0),
    )
