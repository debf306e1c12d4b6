"""Bitmaps in qcow2 images that nobody has open: what was written since a moment."""

from __future__ import annotations

import json

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import qcow2


def names(path: str, deadline: Deadline) -> list[str]:
    """Return the names of an image's bitmaps. Raises ProgramError."""
    done = qcow2.run(["info", "-f", "qcow2", "--output=json", path], deadline)
    try:
        specific = json.loads(done.text).get("format-specific", {}).get("data", {})
        return [str(item["name"]) for item in specific.get("bitmaps", ())]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise errors.ProgramError(f"'qemu-img info' said odd things about '{path}'.") from None


def remove(path: str, name: str, deadline: Deadline) -> None:
    """Remove a bitmap, also one that a killed QEMU left unfinished."""
    qcow2.run(["bitmap", "--remove", "-f", "qcow2", path, name], deadline)
