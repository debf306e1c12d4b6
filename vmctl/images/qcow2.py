"""Makes and describes disk images with qemu-img, which is never let loose without limits."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.machine.model import DiskFormat
from vmctl.store import files

LIMITS = process.Limits(address_space=1 << 30, cpu_seconds=30)
"""A damaged or hostile image makes qemu-img loop or fill the memory (oVirt has the same limits)."""

_PATIENCE = 60.0
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What qemu-img says of an image; sizes in bytes.

    `backing` and `data_file` are the other files that the image refers to, empty when none.
    """

    path: str
    format: DiskFormat
    virtual_size: int
    backing: str = ""
    data_file: str = ""
    encrypted: bool = False
    corrupt: bool = False
    dirty: bool = False


def run(words: Sequence[str], deadline: Deadline, *, check: bool = True) -> process.Completed:
    """Run qemu-img within limits. Raises HostError, ProgramError, WaitTimeoutError."""
    return process.run(["qemu-img", *words], deadline.within(_PATIENCE), limits=LIMITS, check=check)


def info(path: str | os.PathLike[str], format: DiskFormat, deadline: Deadline) -> ImageInfo:  # noqa: A002
    """Describe an image without opening any file that it refers to.

    The format is never guessed. Raises ConflictError while another process writes to the image,
    ProgramError when it is no image of this format.
    """
    place = os.path.abspath(path)
    done = run(["info", "-f", format, "--output=json", place], deadline, check=False)
    if done.status != 0:
        if "lock" in done.complaint:
            raise errors.ConflictError(
                f"The image '{place}' is in use by another process.",
                hint="Stop the machine that uses it, or name a copy.",
                details=done.complaint,
            )
        raise process.failure(done)
    return _parsed(place, format, done.text)


def _parsed(place: str, format: DiskFormat, text: str) -> ImageInfo:  # noqa: A002
    try:
        data: dict[str, Any] = json.loads(text)
        specific = data.get("format-specific", {}).get("data", {})
        return ImageInfo(
            path=place,
            format=format,
            virtual_size=int(data["virtual-size"]),
            backing=str(data.get("backing-filename", "")),
            data_file=str(specific.get("data-file", "")),
            encrypted=bool(data.get("encrypted", False)) or "encrypt" in specific,
            corrupt=bool(specific.get("corrupt", False)),
            dirty=bool(data.get("dirty-flag", False)),
        )
    except (ValueError, KeyError, AttributeError, TypeError) as problem:
        raise errors.ProgramError(
            f"'qemu-img info' said something about '{place}' that cannot be understood.",
            details=f"{problem!r}: {text[:500]}",
        ) from None


def create_overlay(
    path: pathlib.Path,
    base: str | os.PathLike[str],
    base_format: DiskFormat,
    size: int,
    deadline: Deadline | None = None,
) -> ImageInfo:
    """Make the qcow2 `path` on top of the read-only image `base`; `size` 0 is the base's own.

    The base must have passed the gate. Raises UsageError for a size below the base's (its end
    would be cut off), ConflictError when `path` exists, HostError when the disk is full.
    """
    deadline = deadline or Deadline.after(_PATIENCE)
    below = info(base, base_format, deadline)
    wanted = whole_sectors(size) or below.virtual_size
    if wanted < below.virtual_size:
        raise errors.UsageError(
            f"A disk of {size} bytes is smaller than the image '{below.path}', which has "
            f"{below.virtual_size}.",
            hint="Ask for a larger disk, or leave the size out.",
        )
    # -u: the base was looked at above; qemu-img need not open it again.
    _create(path, ["-u", "-F", base_format, "-b", below.path], wanted, deadline)
    return info(path, DiskFormat.QCOW2, deadline)


def create_blank(path: pathlib.Path, size: int, deadline: Deadline | None = None) -> ImageInfo:
    """Make an empty qcow2 of `size` bytes at `path`. Raises as `create_overlay` does."""
    if size <= 0:
        raise errors.UsageError(f"A disk cannot have a size of {size} bytes.")
    deadline = deadline or Deadline.after(_PATIENCE)
    _create(path, [], whole_sectors(size), deadline)
    return info(path, DiskFormat.QCOW2, deadline)


def whole_sectors(size: int) -> int:
    """Return the size that an image of `size` bytes gets."""
    return -(-size // _SECTOR) * _SECTOR


def grow(path: pathlib.Path, size: int, deadline: Deadline) -> None:
    """Give a qcow2 that nobody uses a larger size in bytes; what is there stays.

    qemu-img itself refuses to make one smaller unless it is told to. Raises HostError when the
    disk is full.
    """
    words = ["resize", "-q", "-f", DiskFormat.QCOW2, str(path), str(whole_sectors(size))]
    try:
        run(words, deadline)
    except errors.ProgramError as problem:
        if "No space left" in problem.details or "quota" in problem.details:
            raise files.unusable(path, OSError(0, "No space left on device")) from None
        raise


def _create(path: pathlib.Path, words: Sequence[str], size: int, deadline: Deadline) -> None:
    draft = files.temporary(path)
    try:
        _reserve(draft)
        # Called on an existing file, qemu-img keeps its mode.
        run(["create", "-q", "-f", DiskFormat.QCOW2, *words, str(draft), str(size)], deadline)
        _publish_new(draft, path)
    except errors.ProgramError as problem:
        if "No space left" in problem.details or "quota" in problem.details:
            full = OSError(0, "No space left on device")
            raise files.unusable(path, full) from None
        raise
    except OSError as problem:
        raise files.unusable(path, problem) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _reserve(draft: pathlib.Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, files.PRIVATE)
    try:
        os.fchmod(descriptor, files.PRIVATE)
    finally:
        os.close(descriptor)


def _publish_new(draft: pathlib.Path, path: pathlib.Path) -> None:
    """Give a finished image its name, durably, and never in place of another file."""
    descriptor = os.open(draft, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        # A link, unlike a rename, fails where the name is taken.
        os.link(draft, path)
    except FileExistsError:
        raise errors.ConflictError(
            f"'{path}' exists already and is not overwritten.",
            hint="Remove the machine that it belongs to: vmctl down NAME",
        ) from None
    files.sync_directory(path.parent)
