"""What begins a backup: the order to libvirt, and the checkpoint of its moment."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping

from vmctl.machine.xml import disk
from vmctl.machine.xml.element import Writer


def targets(live: str) -> dict[str, str]:
    """Return what libvirt calls every disk of a running domain (vda), by its file."""
    root = ET.fromstring(live)  # noqa: S314  (libvirt's own output; its parser refuses entities)
    found = {}
    for element in root.iterfind("devices/disk"):
        target = element.find("target")
        if target is not None:
            # A drive without a medium has no file; it counts all the same.
            dev = target.get("dev", "")
            found[disk.source_of(element) or f":{dev}"] = dev
    return found


def write(every: Mapping[str, str], copies: Mapping[str, str], since: str = "") -> str:
    """Return the order for a backup: `copies` says where each disk goes, both by their files.

    `every` is what `targets` returned: disks that are not named would be taken along. `since` is
    the checkpoint that changes are counted from.
    """
    out = Writer("domainbackup", mode="push")
    if since:
        out.add(out.root, "incremental", text=since)
    disks = out.add(out.root, "disks")
    for source, target in every.items():
        if source not in copies:
            out.add(disks, "disk", name=target, backup="no")
            continue
        element = out.add(disks, "disk", name=target, backup="yes", type_="file")
        out.add(element, "driver", type_="qcow2")
        out.add(element, "target", file=copies[source])
    return out.text()


def write_checkpoint(name: str, every: Mapping[str, str], copies: Mapping[str, str]) -> str:
    """Return the checkpoint from whose moment on changes of the copied disks are recorded."""
    out = Writer("domaincheckpoint")
    out.add(out.root, "name", text=name)
    disks = out.add(out.root, "disks")
    for source, target in every.items():
        kind = "bitmap" if source in copies else "no"
        out.add(disks, "disk", name=target, checkpoint=kind)
    return out.text()
