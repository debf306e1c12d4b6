"""What `top` shows: what running machines use, as counters and as rates between two moments."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence

from vmctl import errors
from vmctl.hypervisor import statistics
from vmctl.hypervisor.connection import Connection
from vmctl.hypervisor.statistics import Counters, DiskCounters, NicCounters
from vmctl.lifecycle import roster
from vmctl.lifecycle.roster import Row
from vmctl.store import records
from vmctl.store.layout import Layout


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One machine at one moment; `counters` is None while it does not run."""

    row: Row
    counters: Counters | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one machine used between two moments, or since its start.

    `cpu` in percent of one host CPU, as in top(1); memory and disk sizes in bytes, rates in bytes
    or requests each second. None: not known, or there is no such device.
    """

    name: str
    project: str
    mode: str
    state: str
    cpus: int
    seconds: float
    cpu: float | None
    memory: int | None
    used: int | None
    resident: int | None
    disk_reads: float | None
    disk_writes: float | None
    disk_read_rate: float | None
    disk_write_rate: float | None
    receive_rate: float | None
    send_rate: float | None


def sample(
    connection: Connection, layout: Layout, *, project: str = "", names: Collection[str] = ()
) -> list[Sample]:
    """Return the store's machines with their counters: two calls to libvirt for any number.

    Raises NotFoundError for a name that the store does not have.
    """
    there = {found.uuid: found for found in statistics.counters(connection)}
    ours = {record.name: record.uuid for record in records.every(layout)}
    for name in names:
        if name not in ours:
            raise errors.NotFoundError(
                f"There is no machine '{name}'.", hint="See all: vmctl ps --all"
            )
    return [
        Sample(row=row, counters=there.get(ours[row.name]))
        for row in roster.rows(connection, layout, project=project)
        if row.name in ours and (not names or row.name in names)
    ]


def between(before: Iterable[Sample], after: Sequence[Sample]) -> list[Usage]:
    """Return what each machine of `after` used since `before`.

    A machine that was started (again) in between is told without rates.
    """
    earlier = {found.row.name: found.counters for found in before if found.counters}
    return [_usage(found, earlier.get(found.row.name)) for found in after]


def _usage(found: Sample, before: Counters | None) -> Usage:
    row, now = found.row, found.counters
    same_run = before is not None and now is not None and before.id == now.id
    seconds = now.at - before.at if same_run and now and before else 0.0
    rates = _rates(before, now, seconds) if seconds > 0 and before and now else _Rates()
    return Usage(
        name=row.name,
        project=row.project,
        mode=row.mode,
        state=row.state.value,
        cpus=now.cpus if now else row.cpus,
        seconds=seconds,
        cpu=rates.cpu,
        memory=now.memory if now else None,
        used=now.used if now else None,
        resident=now.resident if now else None,
        disk_reads=rates.disk_reads,
        disk_writes=rates.disk_writes,
        disk_read_rate=rates.disk_read_rate,
        disk_write_rate=rates.disk_write_rate,
        receive_rate=rates.receive_rate,
        send_rate=rates.send_rate,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Rates:
    cpu: float | None = None
    disk_reads: float | None = None
    disk_writes: float | None = None
    disk_read_rate: float | None = None
    disk_write_rate: float | None = None
    receive_rate: float | None = None
    send_rate: float | None = None


def _rates(before: Counters, now: Counters, seconds: float) -> _Rates:
    def disks(field: str) -> float | None:
        return _rate(_of(before.disks, field), _of(now.disks, field), seconds)

    def nics(field: str) -> float | None:
        return _rate(_of(before.nics, field), _of(now.nics, field), seconds)

    cpu = _rate({"": before.cpu_seconds}, {"": now.cpu_seconds}, seconds)
    return _Rates(
        cpu=None if cpu is None else 100 * cpu,
        disk_reads=disks("read_requests"),
        disk_writes=disks("write_requests"),
        disk_read_rate=disks("read_bytes"),
        disk_write_rate=disks("written_bytes"),
        receive_rate=nics("received_bytes"),
        send_rate=nics("sent_bytes"),
    )


def _of(devices: Iterable[DiskCounters | NicCounters], field: str) -> dict[str, float | None]:
    return {device.device: getattr(device, field) for device in devices}


def _rate(
    before: dict[str, float | None], now: dict[str, float | None], seconds: float
) -> float | None:
    """Return the growth of all counters together; a device plugged in between begins at 0."""
    known = [(before.get(key) or 0, value) for key, value in now.items() if value is not None]
    if not known:
        return None
    # A device that was unplugged and plugged again counts from 0 once more.
    return sum(max(0, value - start) for start, value in known) / seconds
