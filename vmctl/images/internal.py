"""Snapshots inside qcow2 images that nobody has open, by qemu-img."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.images import qcow2

_LEAKS = 3
"""Status of `qemu-img check` where clusters are lost and nothing else is wrong (qemu-img(1))."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tag:
    """A snapshot as an image knows it; `memory` is what the machine's state takes in it (bytes)."""

    name: str
    memory: int


def tags(path: str, deadline: Deadline) -> dict[str, Tag]:
    """Return an image's snapshots by name. Raises ConflictError while it is in use."""
    done = qcow2.run(["info", "-f", "qcow2", "--output=json", path], deadline, check=False)
    _require(done, path)
    try:
        return parsed(json.loads(done.text).get("snapshots", ()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise errors.ProgramError(f"'qemu-img info' said odd things about '{path}'.") from None


def parsed(items: list[dict[str, object]] | tuple[()]) -> dict[str, Tag]:
    """Read what qemu-img and QEMU's monitor both say of snapshots."""
    return {
        str(item["name"]): Tag(str(item["name"]), int(str(item["vm-state-size"]))) for item in items
    }


def take(path: str, name: str, deadline: Deadline) -> None:
    """Keep the content of an image under a name. Raises ConflictError, HostError (disk full)."""
    _snapshot("-c", name, path, deadline)


def apply(path: str, name: str, deadline: Deadline) -> None:
    """Give an image the content that is kept under a name. Raises as `take`."""
    _snapshot("-a", name, path, deadline)


def delete(path: str, name: str, deadline: Deadline) -> None:
    """Forget what is kept under a name and give the room back to the host; fine if it is gone."""
    if name in tags(path, deadline):
        _snapshot("-d", name, path, deadline)


def mend(path: str, deadline: Deadline) -> None:
    """Free what a killed writer lost in an image; never anything that could be data.

    Raises RefusedError for an image that is damaged.
    """
    done = qcow2.run(["check", "-f", "qcow2", path], deadline, check=False)
    if done.status == _LEAKS:
        done = qcow2.run(["check", "-f", "qcow2", "-r", "leaks", path], deadline, check=False)
    if done.status != 0 and "lock" not in done.complaint:
        raise errors.RefusedError(
            f"The image '{path}' is damaged.",
            hint="Copy it before anything else; then: qemu-img check -r all",
            details=done.complaint or done.text[-500:],
        )


def create_empty(path: pathlib.Path, deadline: Deadline) -> None:
    """Make the image that takes the memory of a machine without disks."""
    qcow2.create_blank(path, 1 << 20, deadline)


def _snapshot(option: str, name: str, path: str, deadline: Deadline) -> None:
    # No -f here: only image options say the format, which is never to be guessed. A comma in them
    # is doubled. `discard`: what is freed goes back to the host.
    where = path.replace(",", ",,")
    words = f"driver=qcow2,discard=unmap,file.driver=file,file.discard=unmap,file.filename={where}"
    done = qcow2.run(["snapshot", option, name, "--image-opts", words], deadline, check=False)
    _require(done, path)


def _require(done: process.Completed, path: str) -> None:
    if done.status == 0:
        return
    if "lock" in done.complaint:
        raise errors.ConflictError(
            f"The image '{path}' is in use by another process.",
            hint="Stop the machine that uses it.",
            details=done.complaint,
        )
    if "No space left" in done.complaint:
        raise errors.HostError(
            f"There is no room for a snapshot in '{path}'.",
            hint="Free some disk space, or delete snapshots: vmctl snapshot prune",
        )
    raise process.failure(done)
