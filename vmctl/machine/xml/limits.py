"""Limits: <cputune>, <memtune>, <blkiotune>, and those of each disk and card."""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ET

from vmctl.machine.limits import NO_MEMORY_LIMIT, PERIOD, Limits
from vmctl.machine.xml.element import Writer

_KIB = 1024


def write(limits: Limits, out: Writer) -> None:
    """Write the limits of the whole machine."""
    if limits.cpu_shares or limits.cpu_quota:
        tune = out.add(out.root, "cputune")
        if limits.cpu_shares:
            why = "spec resources cpu_weight: cpu.weight on cgroup v2, 10.24 times as much on v1"
            out.add(tune, "shares", text=str(limits.cpu_shares), why=why)
        if limits.cpu_quota:
            why = "spec resources cpu_quota: of the whole guest, QEMU's own threads included"
            out.add(tune, "global_period", text=str(PERIOD), why=why)
            out.add(tune, "global_quota", text=str(limits.quota_microseconds))
    if limits.memory:
        tune = out.add(out.root, "memtune")
        why = "spec resources memory_limit: above it the kernel ends QEMU"
        out.add(tune, "hard_limit", unit="KiB", text=str(limits.memory // _KIB), why=why)
    if limits.io_weight:
        tune = out.add(out.root, "blkiotune")
        out.add(tune, "weight", text=str(limits.io_weight), why="spec resources io_weight")


def write_disk(limits: Limits, element: ET.Element, out: Writer) -> None:
    """Write what one disk may do; QEMU itself holds it to that."""
    if not limits.disk:
        return
    tune = out.add(element, "iotune", why="spec resources disk_…: throttled in QEMU, for each disk")
    for name, value in limits.disk.items():
        out.add(tune, name, text=str(value))


def write_card(limits: Limits, element: ET.Element, out: Writer) -> None:
    """Write what one card may send and receive: a queue and a police filter on its tap device."""
    if not limits.net_rate:
        return
    why = "spec resources net_rate: tc on the host's end of the card"
    band = out.add(element, "bandwidth", why=why)
    for direction in ("inbound", "outbound"):
        out.add(band, direction, average=str(limits.net_rate // _KIB))


def read(root: ET.Element) -> Limits:
    """Return the limits of a domain; those of disks and cards are the same for all."""
    number = functools.partial(_number, root)
    quota = number("cputune/global_quota")
    period = number("cputune/global_period") or PERIOD
    memory = number("memtune/hard_limit")
    vcpu = root.find("vcpu")
    return Limits(
        cpu_shares=number("cputune/shares"),
        cpu_quota=max(0, 100 * quota // period),
        cpuset=vcpu.get("cpuset", "") if vcpu is not None else "",
        memory=0 if memory >= NO_MEMORY_LIMIT else memory * _KIB,
        io_weight=number("blkiotune/weight"),
        disk_read_iops=number("devices/disk/iotune/read_iops_sec"),
        disk_write_iops=number("devices/disk/iotune/write_iops_sec"),
        disk_read_rate=number("devices/disk/iotune/read_bytes_sec"),
        disk_write_rate=number("devices/disk/iotune/write_bytes_sec"),
        net_rate=_net_rate(root),
    )


def _number(root: ET.Element, path: str) -> int:
    """Return a whole number of a domain; 0 for what is not there, or is none."""
    text = (root.findtext(path) or "").strip()
    return int(text) if text.lstrip("-").isdigit() else 0


def _net_rate(root: ET.Element) -> int:
    inbound = root.find("devices/interface/bandwidth/inbound")
    return int(inbound.get("average", "0")) * _KIB if inbound is not None else 0
