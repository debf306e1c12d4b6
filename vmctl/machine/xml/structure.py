"""Compares a domain with the one that would be written: what is missing, what is extra.

XML text is never compared: libvirt reorders, adds addresses and fills in defaults.
"""

from __future__ import annotations

import dataclasses
import re
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

_KINDS = {"controller": "type", "feature": "name", "timer": "name"}
"""Attributes without which two elements of a tag have nothing in common."""

_PS2 = {("mouse", "ps2"), ("keyboard", "ps2")}


@dataclasses.dataclass(frozen=True, slots=True)
class Mismatch:
    """One place where two domains differ; None stands for what is absent on that side.

    `path` leads to an element, or to an attribute where its last part begins with @. Of an element
    that only one side has, the other value is what tells it from others of its kind.
    """

    path: str
    wanted: str | None
    found: str | None

    @property
    def attribute(self) -> bool:
        """True where it is about an attribute's value."""
        return "/@" in self.path

    @property
    def written(self) -> str:
        """What is wanted, as a short path."""
        return self.path if self.found is None and not self.attribute else self._short(self.wanted)

    @property
    def present(self) -> str:
        """What is there, as a short path; or that nothing is."""
        if self.found is not None:
            return self._short(self.found)
        if self.attribute:
            place, _, name = self.path.rpartition("/@")
            return f"{place}[@{name}] (absent)"
        telling = (self.wanted or "").strip(" ()")
        return f"{self.path} ({telling}{', ' if telling else ''}absent)"

    def _short(self, value: str | None) -> str:
        place, _, name = self.path.rpartition("/@")
        return f"{place}[@{name}='{value}']" if self.attribute else f"{self.path}{value}"


def compare(wanted: ET.Element, found: ET.Element) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what `wanted` has and `found` lacks, and what only `found` has, as short paths."""
    differences = list(_mismatches(wanted, found, "domain"))
    missing = tuple(one.written for one in differences if one.wanted is not None)
    unknown = tuple(one.present for one in differences if one.wanted is None)
    return missing, unknown


def unmanaged(wanted: ET.Element, found: ET.Element) -> tuple[str, ...]:
    """Return what is there, or absent, in a domain that others made, as short paths."""
    return tuple(one.present for one in differing(wanted, found))


def differing(wanted: ET.Element, found: ET.Element) -> list[Mismatch]:
    """Return where a domain that others made differs from the one that vmctl would write, sorted.

    vmctl's own handles are not counted: what only it needs to reach a machine, and what only the
    host needs to open a disk. No guest sees any of them.
    """
    boots = found.find("os/boot") is not None
    return sorted(
        (one for one in _mismatches(wanted, found, "domain") if not _handle(one, boots=boots)),
        key=lambda one: (one.path, one.wanted or "", one.found or ""),
    )


_HANDLES = re.compile(
    r"domain/(seclabel|devices/(\w+/alias|(serial|console)/log|disk(/backingStore)?"
    r"/source/seclabel))"
)
"""What a domain of others may lack: by these vmctl, and the accounts it uses, reach things."""

_SLOTS = re.compile(r" \(pcie-root(-port)?\)")
"""Buses and slots of a machine; libvirt puts in as many as there are devices."""

_AS_OPENED = re.compile(r"domain/devices/disk/driver/@(?!name$|type$).*")
"""How the host opens a disk that was there before; vmctl leaves that as it is."""


def _handle(one: Mismatch, *, boots: bool) -> bool:
    """Tell whether a difference is about handles; `boots` says that <os><boot> has the order."""
    if one.path.endswith("/alias/@name"):
        return True
    if one.wanted is None:
        return bool(_AS_OPENED.fullmatch(one.path))
    if one.found is not None:
        return False
    if one.path == "domain/devices/controller":
        return bool(_SLOTS.fullmatch(one.wanted))
    return bool(_HANDLES.fullmatch(one.path)) or (boots and one.path == "domain/devices/disk/boot")


def _mismatches(wanted: ET.Element, found: ET.Element, path: str) -> Iterator[Mismatch]:
    for name, value in wanted.attrib.items():
        if found.get(name) != value and not _added(f"{path}/{name}", _ADDED_ATTRIBUTES):
            yield Mismatch(f"{path}/@{name}", value, found.get(name))
    for name, value in found.attrib.items():
        if name not in wanted.attrib and not _added(f"{path}/{name}", _ADDED_ATTRIBUTES):
            yield Mismatch(f"{path}/@{name}", None, value)
    before, after = (wanted.text or "").strip(), (found.text or "").strip()
    if before != after and not len(wanted):
        yield Mismatch(path, f"='{before}'", f"='{after}'")
    left = list(found)
    for child in wanted:
        if child.tag == "metadata":
            continue
        twin = partner(child, left)
        if twin is None:
            yield Mismatch(f"{path}/{child.tag}", _telling(child), None)
        else:
            left.remove(twin)
            yield from _mismatches(child, twin, f"{path}/{child.tag}")
    for child in left:
        if not _added(f"{path}/{child.tag}", _ADDED_ELEMENTS) and not _by_libvirt(child):
            yield Mismatch(f"{path}/{child.tag}", None, _telling(child))


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


def partner(child: ET.Element, candidates: list[ET.Element]) -> ET.Element | None:
    """Return the most similar candidate with the same tag, and of the same kind."""
    kind = _KINDS.get(child.tag, "")
    same = [
        candidate
        for candidate in candidates
        if candidate.tag == child.tag and (not kind or candidate.get(kind) == child.get(kind))
    ]
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
