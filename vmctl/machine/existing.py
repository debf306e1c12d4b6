"""Disks that were there before the machine: used as they are. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vmctl.machine.model import Disk, DiskFormat
from vmctl.spec import paths
from vmctl.spec.model import DiskSpec
from vmctl.spec.objection import Objection


def disk(spec: DiskSpec) -> Disk:
    """Return a disk that the spec names by its path."""
    assert spec.format is not None
    form = DiskFormat(spec.format.value)
    return Disk(name=spec.name, file=spec.path, size=0, format=form, external=True)


def objections(disks: tuple[DiskSpec, ...], home: str) -> Iterator[Objection]:
    """Yield what is wrong with the places of disks; `home` is the store's directory."""
    seen: set[str] = set()
    for number, each in enumerate(disks):
        location = ("disks", number, "path")
        if each.path and paths.holds(home, each.path):
            message = f"'{each.path}' lies in the store: images there are shared and never written"
            yield Objection(location, message, "make a disk of an image with 'image:', or copy it")
        if each.path and each.path in seen:
            yield Objection(location, f"'{each.path}' is the disk of two names", "leave one out")
        seen.add(each.path)
