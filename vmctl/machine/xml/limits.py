"""Limits: <cputune>, <memtune>, <blkiotune>, and those of each disk and card."""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ET

from vmctl.machine.limits import NO_MEMORY_LIMIT, PERIOD, Limits
from vmctl.machine.xml.element import Writer
from vmctl.machine.xml.element import number as whole
from vmctl.machine.xml.metadata import Metadata

_KIB = 1024
_OWN_DISK = "ua-disk-"
_OWN_CARD = "ua-net"


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


def read(root: ET.Element, own: Metadata | None = None) -> Limits:
    """Return the limits of a domain; those of disks and cards are the same for all of them.

    Of an owned domain only its own devices are asked, not those that other hands plugged in.
    """
    number = functools.partial(_number, root)
    quota = number("cputune/global_quota")
    period = number("cputune/global_period") or PERIOD
    memory = number("memtune/hard_limit")
    disk = _first(root, "disk", _OWN_DISK if own else "")
    card = _first(root, "interface", _OWN_CARD if own else "")
    return Limits(
        cpu_shares=number("cputune/shares"),
        cpu_quota=max(0, 100 * quota // period),
        cpuset=_cpuset(root),
        memory=0 if memory >= NO_MEMORY_LIMIT else memory * _KIB,
        io_weight=number("blkiotune/weight"),
        disk_read_iops=_number(disk, "iotune/read_iops_sec"),
        disk_write_iops=_number(disk, "iotune/write_iops_sec"),
        disk_read_rate=_number(disk, "iotune/read_bytes_sec"),
        disk_write_rate=_number(disk, "iotune/write_bytes_sec"),
        net_rate=_net_rate(card),
    )


def _cpuset(root: ET.Element) -> str:
    """Return the processors of all virtual ones.

    A running domain that was pinned meanwhile has a <vcpupin> for each, which counts then.
    """
    vcpu = root.find("vcpu")
    common = vcpu.get("cpuset", "") if vcpu is not None else ""
    pinned = [pin.get("cpuset", "") for pin in root.iterfind("cputune/vcpupin")]
    everyone = vcpu is not None and len(pinned) >= whole(vcpu.get("current", vcpu.text), 1)
    return pinned[0] if everyone and len(set(pinned)) == 1 else common


def _first(root: ET.Element, tag: str, alias: str) -> ET.Element:
    """Return the first device of a kind whose alias begins so; an empty one where there is none."""
    for element in root.iterfind(f"devices/{tag}"):
        named = element.find("alias")
        name = named.get("name", "") if named is not None else ""
        if element.get("device", "disk") == "disk" and name.startswith(alias):
            return element
    return ET.Element(tag)


def _number(root: ET.Element, path: str) -> int:
    """Return a whole number of an element; 0 for what is not there, or is none."""
    text = (root.findtext(path) or "").strip()
    return int(text) if text.lstrip("-").isdigit() else 0


def _net_rate(card: ET.Element) -> int:
    inbound = card.find("bandwidth/inbound")
    average = inbound.get("average", "") if inbound is not None else ""
    return int(average) * _KIB if average.isdigit() else 0
