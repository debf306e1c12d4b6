"""Compares a domain with the one that would be written: what is missing, what is extra.

XML text is never compared: libvirt reorders, adds addresses and fills in defaults.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator

_ADDED_ELEMENTS = frozenset(
    {
        "domain/resource",
        "domain/seclabel",
        "domain/metadata",
        "domain/os/loader",
        "domain/os/boot",
        "domain/os/bootmenu",
        "domain/cpu/model",
        "domain/devices/audio",
        "domain/devices/*/address",
        "domain/devices/*/alias",
        "domain/devices/disk/source/index",
        "domain/devices/controller/target",
        "domain/devices/controller/model",
        "domain/devices/serial/target/model",
        "domain/devices/filesystem/binary",
        "domain/devices/tpm/backend/profile",
        "domain/devices/watchdog[itco]",
    }
)
"""Elements that libvirt fills in by itself."""

_ADDED_ATTRIBUTES = frozenset(
    {
        "domain/id",
        "domain/vcpu/current",
        "domain/os/type/machine",
        "domain/os/nvram/template",
        "domain/os/nvram/templateFormat",
        "domain/os/nvram/format",
        "domain/os/nvram/type",
        "domain/cpu/topology/clusters",
        "domain/devices/*/model/fallback",
        "domain/devices/video/model/heads",
        "domain/devices/video/model/primary",
        "domain/devices/video/model/ram",
        "domain/devices/video/model/vram",
        "domain/devices/video/model/vgamem",
        "domain/devices/disk/driver/queues",
        "domain/devices/disk/snapshot",
        "domain/devices/graphics/passwd",
        "domain/devices/disk/source/index",
        "domain/devices/console/tty",
        "domain/devices/interface/source/portid",
        "domain/devices/tpm/backend/persistent_state",
        "domain/devices/controller/ports",
        "domain/devices/controller/vectors",
    }
)
"""Attributes that libvirt fills in by itself."""

_PS2 = {("mouse", "ps2"), ("keyboard", "ps2")}


def compare(wanted: ET.Element, found: ET.Element) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what `wanted` has and `found` lacks, and what only `found` has, as short paths."""
    differences = list(_compare(wanted, found, "domain"))
    missing = tuple(path for side, path in differences if side == "missing")
    unknown = tuple(path for side, path in differences if side == "unknown")
    return missing, unknown


def _compare(wanted: ET.Element, found: ET.Element, path: str) -> Iterator[tuple[str, str]]:
    for name, value in wanted.attrib.items():
        if found.get(name) != value and not _added(f"{path}/{name}", _ADDED_ATTRIBUTES):
            yield "missing", f"{path}[@{name}='{value}']"
    for name, value in found.attrib.items():
        if name not in wanted.attrib and not _added(f"{path}/{name}", _ADDED_ATTRIBUTES):
            yield "unknown", f"{path}[@{name}='{value}']"
    if (wanted.text or "").strip() != (found.text or "").strip() and not len(wanted):
        yield "missing", f"{path}='{(wanted.text or '').strip()}'"
    left = list(found)
    for child in wanted:
        if child.tag == "metadata":
            continue
        partner = _partner(child, left)
        if partner is None:
            yield "missing", f"{path}/{child.tag}"
        else:
            left.remove(partner)
            yield from _compare(child, partner, f"{path}/{child.tag}")
    for child in left:
        if not _added(f"{path}/{child.tag}", _ADDED_ELEMENTS) and not _by_libvirt(child):
            yield "unknown", f"{path}/{child.tag}{_telling(child)}"


def _telling(element: ET.Element) -> str:
    """Return what tells such an element from others: a disk's target and file, a card's MAC."""
    words = [
        part.get(name, "")
        for part in (element, *element)
        for name in ("name", "dev", "file", "address", "model")
        if part.tag != "address"
    ]
    found = [word for word in words if word]
    return f" ({', '.join(found[:3])})" if found else ""


def _partner(child: ET.Element, candidates: list[ET.Element]) -> ET.Element | None:
    """Return the most similar candidate with the same tag."""
    same = [candidate for candidate in candidates if candidate.tag == child.tag]
    return max(same, key=lambda candidate: _likeness(child, candidate), default=None)


def _likeness(one: ET.Element, other: ET.Element) -> int:
    score = sum(1 for name, value in one.attrib.items() if other.get(name) == value)
    score += (one.text or "").strip() == (other.text or "").strip()
    for child in one:
        score += max(
            (1 + _likeness(child, twin) for twin in other if twin.tag == child.tag), default=0
        )
    return score


def _added(path: str, allowed: frozenset[str]) -> bool:
    if path in allowed:
        return True
    parts = path.split("/")
    if len(parts) > 2 and parts[1] == "devices":
        return "/".join([*parts[:2], "*", *parts[3:]]) in allowed
    return False


def _by_libvirt(element: ET.Element) -> bool:
    """Tell whether libvirt adds such a device to every machine."""
    if element.tag == "input":
        return (element.get("type"), element.get("bus")) in _PS2
    if element.tag == "controller":
        return element.get("type") in ("pci", "sata", "ide", "fdc")
    if element.tag == "watchdog":
        return element.get("model") == "itco"
    return False
