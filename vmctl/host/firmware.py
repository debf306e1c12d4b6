"""Which UEFI builds QEMU's firmware descriptors offer (docs/interop/firmware.json in QEMU)."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from vmctl.host import reading

_DIRECTORIES = ("usr/share/qemu/firmware", "etc/qemu/firmware")
"""Later ones win: a file of the same name replaces, an empty one masks."""


def offered(root: pathlib.Path) -> tuple[str, ...]:
    """Return 'uefi' and 'uefi-secure' as far as a descriptor names a build that is there."""
    descriptors = {
        name: root / directory / name
        for directory in _DIRECTORIES
        for name in reading.names(root / directory)
        if name.endswith(".json")
    }
    kinds = {_kind(root, path) for path in descriptors.values()}
    return tuple(sorted(kinds - {""}))


def _kind(root: pathlib.Path, path: pathlib.Path) -> str:
    try:
        data: dict[str, Any] = json.loads(reading.raw(path))
        features = set(data["features"])
        targets = {target["architecture"] for target in data["targets"]}
        mapping = data["mapping"]
        # Builds for confidential guests have no template for variables, and start no ordinary one.
        files = [mapping[part]["filename"] for part in ("executable", "nvram-template")]
        usable = "uefi" in data["interface-types"] and "x86_64" in targets
        if not usable or not all(os.path.exists(root / file.lstrip("/")) for file in files):
            return ""
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    if "secure-boot" not in features:
        return "uefi"
    return "uefi-secure" if "enrolled-keys" in features else ""
