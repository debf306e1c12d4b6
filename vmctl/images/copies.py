"""Copies of disks for backups, by qemu-img: whole, as what changed, and back again.

A copy of what changed has another copy below it, named by a relative path, so that a directory of
backups can be moved. Nothing here writes to an image that it copies.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pathlib
import re
from collections.abc import Callable

from vmctl import errors, interruption, process
from vmctl.deadline import Deadline
from vmctl.images import qcow2
from vmctl.machine.model import DiskFormat
from vmctl.store import files

_LIMITS = process.Limits(address_space=2 << 30)
"""Far more than qemu-img needs for large images; a damaged one can make it ask for more."""

_SECONDS = 24 * 3600.0
_SHORT = 60.0
_LOOK = 0.1
_BLOCK = 1 << 20
_LEAKS = 3
_TAIL = 200
_SHARE = re.compile(rb"\((\d+)\.\d+/100%\)")
_DIFFERENT = 1

Told = Callable[[int, int], None]
"""Is given how much is done, and of how much."""


def reserve(target: pathlib.Path, size: int, below: str = "") -> None:
    """Make the empty image that a backup is written into, on the copy `below`, if there is one."""
    words = ["-u", "-b", below, "-F", "qcow2"] if below else []
    _reserved(target)
    _short(["create", "-q", "-f", "qcow2", *words, str(target), str(size)], target)


def whole(source: str, target: pathlib.Path, told: Told) -> None:
    """Copy all that a disk shows, whatever lies below it."""
    _reserved(target)
    _long(["convert", "-p", "-f", "qcow2", "-O", "qcow2", source, str(target)], target, told)


def changes(source: str, size: int, below: str, target: pathlib.Path, told: Told) -> None:
    """Copy what a disk shows that the copy `below` does not: both are read and compared."""
    _reserved(target)
    words = ["-u", "-b", os.path.abspath(source), "-F", "qcow2"]
    _short(["create", "-q", "-f", "qcow2", *words, str(target), str(size)], target)
    _long(["rebase", "-p", "-f", "qcow2", "-F", "qcow2", "-b", below, str(target)], target, told)


def onto(
    source: str, size: int, base: str, base_format: DiskFormat, target: pathlib.Path, told: Told
) -> None:
    """Make a disk on an image (`base`, empty for none) that shows what a copy shows."""
    if not base:
        whole(source, target, told)
        return
    _reserved(target)
    words = ["-u", "-b", os.path.abspath(source), "-F", "qcow2"]
    _short(["create", "-q", "-f", "qcow2", *words, str(target), str(size)], target)
    _long(["rebase", "-p", "-f", "qcow2", "-F", base_format, "-b", base, str(target)], target, told)


def virtual_size(path: str) -> int:
    """Return what a guest sees of an image, in bytes."""
    return qcow2.info(path, DiskFormat.QCOW2, Deadline.after(_SHORT)).virtual_size


def require_same(one: str, other: str, told: Told) -> None:
    """Raise RefusedError where two images do not show the same, byte for byte."""
    words = ["compare", "-p", "-f", "qcow2", "-F", "qcow2", one, other]
    if _run(words, told).status == _DIFFERENT:
        raise errors.RefusedError(f"'{other}' does not show what '{one}' shows.")


def require_header(path: pathlib.Path, below: str, size: int) -> None:
    """Raise RefusedError for an image that is damaged, or that refers to other files than it may.

    To be asked before anything else opens it.
    """
    try:
        found = qcow2.info(path, DiskFormat.QCOW2, Deadline.after(_SHORT))
    except errors.ProgramError as problem:
        raise _damaged(path, problem.details) from None
    if found.backing != below or found.data_file or found.encrypted or found.corrupt:
        raise errors.RefusedError(
            f"The image '{path}' refers to '{found.backing or found.data_file or 'nothing'}', and "
            f"should refer to '{below or 'nothing'}'.",
            hint="Use another backup: vmctl backup list",
        )
    if found.virtual_size != size:
        raise errors.RefusedError(
            f"The image '{path}' has {found.virtual_size} bytes, and should have {size}.",
            hint="Use another backup: vmctl backup list",
        )


def require_sound(path: pathlib.Path, told: Told) -> None:
    """Raise RefusedError for an image whose tables are damaged; opens what it refers to."""
    done = _run(["check", "-f", "qcow2", str(path)], told)
    if done.status not in (0, _LEAKS):
        raise _damaged(path, done.complaint or done.text[-500:])


def digest(path: pathlib.Path, told: Told | None = None) -> str:
    """Return the sha256 (hex) of a file. Raises RefusedError where it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            total, done = os.fstat(stream.fileno()).st_size, 0
            while block := stream.read(_BLOCK):
                interruption.stop_if_unwanted()
                found.update(block)
                done += len(block)
                if told is not None:
                    told(done, total)
    except OSError as problem:
        raise errors.RefusedError(
            f"'{path}' cannot be read: {problem.strerror}.",
            hint="Use another backup: vmctl backup list",
        ) from None
    return found.hexdigest()


def _damaged(path: pathlib.Path, details: str) -> errors.RefusedError:
    return errors.RefusedError(
        f"The image '{path}' is damaged.",
        hint="Use another backup: vmctl backup list",
        details=details,
    )


def _reserved(target: pathlib.Path) -> None:
    """Make an empty private file, which qemu-img then writes to and keeps the mode of."""
    files.write(target, b"")


def _short(words: list[str], target: pathlib.Path) -> None:
    try:
        qcow2.run(words, Deadline.after(_SHORT))
    except errors.ProgramError as problem:
        raise _full(problem, target) from None


def _long(words: list[str], target: pathlib.Path, told: Told) -> None:
    try:
        done = _run(words, told)
        if done.status != 0:
            raise _full(process.failure(done), target)
    except BaseException:
        with contextlib.suppress(OSError):
            target.unlink()
        raise


def _full(problem: errors.ProgramError, target: pathlib.Path) -> errors.VmctlError:
    """Return the error of a full disk as what it is."""
    if "No space left" in problem.details or "quota" in problem.details:
        return errors.HostError(
            f"There is no room in '{target.parent}': {os.strerror(errno.ENOSPC)}.",
            hint="Free some disk space, or choose another place.",
        )
    return problem


def _run(words: list[str], told: Told) -> process.Completed:
    """Run qemu-img for as long as it takes, tell how far it is, end it when nobody wants it."""
    interruption.stop_if_unwanted()
    deadline = Deadline.after(_SECONDS)
    argv = [*_LIMITS.prefix(), "qemu-img", *words]
    said, wrong = b"", b""
    with process.beside(argv) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for stream in (child.stdout, child.stderr):
            os.set_blocking(stream.fileno(), False)
        over = False
        while not over:
            over = process.ended(child, _LOOK)
            said = (said + (child.stdout.read() or b""))[-_BLOCK:]
            wrong = (wrong + (child.stderr.read() or b""))[-_BLOCK:]
            shares = _SHARE.findall(said[-_TAIL:])
            if shares:
                told(int(shares[-1]), 100)
            interruption.stop_if_unwanted()
            if deadline.passed:
                raise errors.WaitTimeoutError(f"'qemu-img {words[0]}' did not end within a day.")
        return process.Completed(("qemu-img", *words), child.returncode, said, wrong)
