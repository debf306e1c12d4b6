"""Disk images of the user's own: checked, copied into the store once, and never written.

Nothing says what such a disk holds, so a standard kernel is assumed, one that drives virtio, AHCI,
IDE, e1000 and e1000e, and no line on its console: a machine on it counts as ready when it runs.
The store's copy can be read by every account that can enter the store, as all images can: QEMU's
own account must.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import os
import pathlib
import stat
import time
from collections.abc import Callable, Iterator

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import catalog, drafts, drivers, gate, shelf
from vmctl.machine.model import DiskFormat, Image
from vmctl.store import files, locks
from vmctl.store.layout import Layout

KEY = "file"
"""With this and a hyphen begin the names of the records of copied files."""

_LOOK_SECONDS = 60.0
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_FICLONE = 0x40049409
"""ioctl_ficlone(2): the copy shares the blocks of the original until one of them is written."""

_CLOCK_TICK = 0.05
"""Seconds within which a second change to a file may leave its times as they are (a tick is at
most 0.01 s on Linux)."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True, slots=True)
class _File:
    """A file of the user's, and what the store calls it."""

    layout: Layout
    path: str
    format: DiskFormat

    @property
    def key(self) -> str:
        """A name that no image built from a recipe can have."""
        return f"{KEY}-{hashlib.sha256(os.fsencode(self.path)).hexdigest()}"

    @property
    def name(self) -> str:
        """The file's name, as people are shown it."""
        name = os.path.basename(self.path)
        return "".join(letter if letter.isprintable() else "?" for letter in name)

    @property
    def disk(self) -> str:
        """The name of its copy."""
        return catalog.disk_name(self.format)

    @property
    def record(self) -> pathlib.Path:
        """Says which digest the file had, and when."""
        return self.layout.image_names / f"{self.key}.json"


def find(layout: Layout, path: str, format: DiskFormat) -> Image:  # noqa: A002
    """Return the image that a file stands for, without reading all of it.

    A file that is not in the store as it is now has an empty digest; it has passed the gate, and
    its size is known. Raises NotFoundError, and what `gate.admit` raises.
    """
    file = _File(layout, os.path.abspath(path), format)
    known = _known(file)
    if known is not None:
        return known
    admitted = gate.admit(file.path, format, Deadline.after(_LOOK_SECONDS))
    return Image(
        name=file.name,
        disk=str(layout.images / f"not-copied-{file.key}" / file.disk),
        disk_format=format,
        size=admitted.virtual_size,
        drivers=frozenset(drivers.STANDARD),
    )


def ensure(
    layout: Layout,
    path: str,
    format: DiskFormat,  # noqa: A002
    deadline: Deadline,
    progress: Progress,
) -> Image:
    """Return the image that a file stands for, copying it into the store first where needed.

    The file is only read. Of several callers at once, one copies and the others wait. Raises as
    `find` does; ConflictError when the file changes meanwhile, HostError when the disk is full,
    WaitTimeoutError.
    """
    file = _File(layout, os.path.abspath(path), format)
    known = _known(file)
    if known is not None:
        return known
    with locks.hold(layout.lock("image", file.key), deadline, f"Image '{file.path}'"):
        # The other one, who held the lock until now, may have copied it.
        return _known(file) or _import(file, deadline, progress)


def _known(file: _File) -> Image | None:
    """Return the image if the file is what it was when it was copied, and the copy is there."""
    identity = _identity(_status(file))
    record = files.read_json(file.record) or {}
    if record.get("identity") != identity or record.get("disk_format") != file.format:
        return None
    stored = catalog.stored(file.layout, str(record.get("digest", "")))
    return dataclasses.replace(stored, name=file.name) if stored is not None else None


def stale(layout: Layout) -> list[pathlib.Path]:
    """Return the records of copies whose original is gone or has changed since."""
    found = []
    for path in sorted(layout.image_names.glob(f"{KEY}-*.json")):
        known = files.read_json(path) or {}
        try:
            identity = _identity(os.stat(str(known.get("path", ""))))
        except OSError:
            identity = []
        if known.get("identity") != identity:
            found.append(path)
    return found


def _status(file: _File) -> os.stat_result:
    try:
        return os.stat(file.path)
    except FileNotFoundError:
        raise errors.NotFoundError(
            f"There is no image '{file.path}'.",
            hint="A path begins in the directory of the spec that names it.",
        ) from None
    except OSError as problem:
        raise _unreadable(file, problem) from None


def _identity(status: os.stat_result) -> list[int]:
    """Return what changes whenever a file does: any write moves the time of the last change."""
    return [
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    ]


def _unreadable(file: _File, problem: OSError) -> errors.HostError:
    return errors.HostError(f"Cannot read the image '{file.path}': {problem.strerror}.")


def _changed(file: _File) -> errors.ConflictError:
    return errors.ConflictError(
        f"The image '{file.path}' changed while it was copied into the store.",
        hint="Wait until nobody writes to it, then try again.",
    )


def _import(file: _File, deadline: Deadline, progress: Progress) -> Image:
    for directory in (file.layout.images, file.layout.image_names):
        files.make_directory(directory)
    _clear_leftovers(file)
    with drafts.workshop(file.layout, file.key) as draft, _failures_said(file):
        copy = _checked_copy(file, draft, deadline, progress)
        facts = shelf.disk_facts(
            file.format, copy.size, copy.length, copy.sha256, "a disk image of the user's own"
        )
        named = {**facts, "name": file.name, "digest": copy.sha256}
        image = shelf.publish(file.layout, draft, named, f"Image '{file.path}'", deadline)
        record = {
            "digest": copy.sha256,
            "identity": copy.identity,
            "path": file.path,
            "disk_format": file.format.value,
        }
        files.write_json(file.record, record, files.SHARED)
    return dataclasses.replace(image, name=file.name)


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """A checked copy of a disk: digest of its content, length of the file, size of the disk."""

    sha256: str
    length: int
    size: int
    identity: list[int]


def copied(
    layout: Layout,
    path: str,
    format: DiskFormat,  # noqa: A002
    draft: pathlib.Path,
    deadline: Deadline,
    progress: Progress,
) -> Copy:
    """Check a disk image and copy it, sparse or as a reflink, to `disk.FORMAT` in `draft`.

    Raises as `ensure` does.
    """
    file = _File(layout, os.path.abspath(path), format)
    with _failures_said(file):
        return _checked_copy(file, draft, deadline, progress)


def _checked_copy(file: _File, draft: pathlib.Path, deadline: Deadline, progress: Progress) -> Copy:
    with _opened(file) as source:
        status = os.fstat(source)
        identity = _identity(status)
        _let_a_tick_pass(status)
        gate.admit(file.path, file.format, deadline)
        digest = _copy(file, source, draft / file.disk, deadline, progress)
        # The name may lead to another file by now, and the open one may have been written.
        if not identity == _identity(os.fstat(source)) == _identity(_status(file)):
            raise _changed(file)
    # The copy is judged once more: the original is not in our hands.
    try:
        admitted = gate.admit(draft / file.disk, file.format, deadline)
    except errors.RefusedError:
        raise _changed(file) from None
    return Copy(digest, status.st_size, admitted.virtual_size, identity)


def _clear_leftovers(file: _File) -> None:
    """Remove what killed copies left, of this file and of others that nobody copies now."""
    drafts.clear(file.layout, file.key)
    for key in drafts.left(file.layout, rf"{KEY}-[0-9a-f]{{64}}"):
        with (
            contextlib.suppress(errors.ConflictError),
            locks.hold(file.layout.lock("image", key), None, f"Image '{key}'"),
        ):
            drafts.clear(file.layout, key)


@contextlib.contextmanager
def _opened(file: _File) -> Iterator[int]:
    """Open the file; O_NONBLOCK because a FIFO in its place would never open."""
    try:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise _unreadable(file, problem) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise errors.RefusedError(
                f"The image '{file.path}' is not a regular file.",
                hint="Name the image file itself.",
            )
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _failures_said(file: _File) -> Iterator[None]:
    """Turn the failures of files into errors for people."""
    try:
        yield
    except OSError as problem:
        if problem.errno in _FULL:
            needed = -(-_status(file).st_blocks * 512 // (1 << 20))
            raise errors.HostError(
                f"The store '{file.layout.home}' has no room for a copy of the image "
                f"'{file.path}', which takes {needed} MiB.",
                hint="Free some space, or choose another place: export VMCTL_HOME=DIRECTORY",
            ) from None
        raise files.unusable(file.layout.images, problem) from None


def _let_a_tick_pass(status: os.stat_result) -> None:
    """Wait until any further change to the file must show in its times."""
    age = time.time() - status.st_ctime
    if 0 <= age < _CLOCK_TICK:
        time.sleep(_CLOCK_TICK - age)


def _copy(
    file: _File, source: int, copy: pathlib.Path, deadline: Deadline, progress: Progress
) -> str:
    """Copy the file, holes and all, and return the sha256 (hex) of the copy's content."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    target = os.open(copy, flags, files.PRIVATE)
    try:
        size = os.fstat(source).st_size
        cloned = _cloned(source, target)
        if not cloned:
            os.ftruncate(target, size)
        digest = hashlib.sha256()
        origin, told = (target, "reading") if cloned else (source, "copying")
        progress(told, 0, size)
        for place, content in _pieces(file, origin, size):
            _refuse_to_be_late(file, deadline)
            digest.update(content)
            # Zeros become a hole even where they were written out.
            if not cloned and content != _ZEROS[: len(content)]:
                _write_all(target, content, place)
            progress(told, place + len(content), size)
        progress("writing", size, size)
        os.fchmod(target, files.SHARED)
        os.fsync(target)
        progress("", size, size)
    finally:
        os.close(target)
    return digest.hexdigest()


def _cloned(source: int, target: int) -> bool:
    """Let the copy share the original's blocks where the file system can (btrfs, XFS)."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _refuse_to_be_late(file: _File, deadline: Deadline) -> None:
    if deadline.passed:
        raise errors.WaitTimeoutError(
            f"Copying the image '{file.path}' did not end within {deadline.seconds:.0f} s."
        )


def _pieces(file: _File, origin: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the whole content in order, each piece with its place; holes are not read."""
    for begin, end, is_data in _extents(origin, size):
        place = begin
        while place < end:
            length = min(_CHUNK, end - place)
            content = _read(file, origin, length, place) if is_data else _ZEROS[:length]
            yield place, content
            place += len(content)


def _read(file: _File, origin: int, length: int, place: int) -> bytes:
    try:
        content = os.pread(origin, length, place)
    except OSError as problem:
        raise _unreadable(file, problem) from None
    if not content:
        raise _changed(file)
    return content


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """Yield begin, end and "is no hole" for all of a file, in order."""
    place = 0
    while place < size:
        data = min(_next_data(descriptor, place, size), size)
        if data > place:
            yield place, data, False
        if data < size:
            place = min(os.lseek(descriptor, data, os.SEEK_HOLE), size)
            yield data, place, True
        else:
            place = size


def _next_data(descriptor: int, place: int, size: int) -> int:
    try:
        return os.lseek(descriptor, place, os.SEEK_DATA)
    except OSError as problem:
        if problem.errno == errno.ENXIO:
            return size
        raise


def _write_all(target: int, content: bytes, place: int) -> None:
    left = memoryview(content)
    while left:
        written = os.pwrite(target, left, place)
        left, place = left[written:], place + written
