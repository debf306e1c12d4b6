"""Puts files that a guest sent onto the host, and nowhere else than where they should go.

A guest is hostile until proven otherwise. Everything first lands in a fresh private directory
beside the destination, entry by entry through directory descriptors and never through a link, and
is moved when all of it has come. Of modes only the permission bits are kept. Devices, sockets,
pipes, and links that lead out of what is copied are left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator

from vmctl import errors
from vmctl.guest.archive import Entry, Kind

_PERMISSIONS = 0o777
_OWN = 0o700
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_PATH = 4096
_DEEPEST = 256


@dataclasses.dataclass(slots=True)
class Summary:
    """What was copied: numbers of files and bytes, and what was left out and why."""

    files: int = 0
    size: int = 0
    left_out: list[str] = dataclasses.field(default_factory=list)


class Landing:
    """The private directory; `root` is the name under it that stands for the whole of a copy."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._top = os.open(directory, _FOLDER)
        self._folders: list[tuple[tuple[bytes, ...], Entry]] = []
        self._links_out: set[tuple[bytes, ...]] = set()
        self.summary = Summary()

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._top)

    def put(self, parts: tuple[bytes, ...], entry: Entry, content: Iterable[bytes]) -> None:
        """Make one entry under the path `parts` of the directory.

        Raises RefusedError for one that would go through a link, HostError where the host's file
        system refuses.
        """
        if any(parts[:length] in self._links_out for length in range(1, len(parts))):
            raise _through_a_link(parts[-2])
        try:
            with self._folder(parts[:-1]) as folder:
                self._put(folder, parts, entry, content)
        except OSError as problem:
            raise errors.HostError(
                f"Cannot write '{_shown(parts)}': {problem.strerror or problem}."
            ) from None

    def _put(
        self, folder: int, parts: tuple[bytes, ...], entry: Entry, content: Iterable[bytes]
    ) -> None:
        name = parts[-1]
        if entry.kind is Kind.DIRECTORY:
            self._make_folder(folder, name)
            self._folders.append((parts, entry))
        elif entry.kind is Kind.FILE:
            _clear(folder, name)
            _write(folder, name, entry, content)
            self.summary.files += 1
            self.summary.size += entry.size
        elif entry.kind is Kind.LINK:
            if not inside(parts, entry.target):
                self._links_out.add(parts)
                self._leave_out(parts, f"leads out of the copy, to '{_text(entry.target)}'")
                return
            _clear(folder, name)
            os.symlink(entry.target, name, dir_fd=folder)
        elif entry.kind is Kind.HARD_LINK:
            self._link_again(folder, name, parts[:1], entry)
        else:
            self._leave_out(parts, "is neither file, directory nor link")

    def _leave_out(self, parts: tuple[bytes, ...], why: str) -> None:
        self.summary.left_out.append(f"'{_shown(parts[1:])}' {why}")

    @contextlib.contextmanager
    def _folder(self, parts: tuple[bytes, ...]) -> Iterator[int]:
        """Open a directory, step by step; those that no entry told of are made."""
        current = os.dup(self._top)
        try:
            for part in parts:
                self._make_folder(current, part)
                current, last = os.open(part, _FOLDER, dir_fd=current), current
                os.close(last)
            yield current
        finally:
            os.close(current)

    @staticmethod
    def _make_folder(folder: int, name: bytes) -> None:
        try:
            os.mkdir(name, _OWN, dir_fd=folder)
        except FileExistsError:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                raise _through_a_link(name) from None

    def _link_again(self, folder: int, name: bytes, top: tuple[bytes, ...], entry: Entry) -> None:
        """Give a file that has come already another name."""
        target = (*top, *split(entry.target))
        with self._folder(target[:-1]) as other:
            found = os.stat(target[-1], dir_fd=other, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise errors.RefusedError(
                    f"The guest sent '{_text(name)}' as another name of what is no file. "
                    "Nothing was copied."
                )
            _clear(folder, name)
            os.link(target[-1], name, src_dir_fd=other, dst_dir_fd=folder, follow_symlinks=False)
        self.summary.files += 1

    def finish(self) -> None:
        """Give directories their modes and times, the innermost first."""
        for parts, entry in reversed(self._folders):
            with self._folder(parts[:-1]) as folder:
                descriptor = os.open(parts[-1], _FOLDER, dir_fd=folder)
                try:
                    os.fchmod(descriptor, entry.mode & _PERMISSIONS | _OWN)
                    _set_time(descriptor, entry.mtime)
                finally:
                    os.close(descriptor)

    def move(self, name: bytes, target: pathlib.Path) -> None:
        """Move what landed under `name` to `target`: into a directory of that name, over a file."""
        try:
            with _opened(target.parent) as folder:
                _merge(self._top, name, folder, os.fsencode(target.name))
        except OSError as problem:
            raise errors.HostError(
                f"Cannot write '{target}': {problem.strerror or problem}."
            ) from None

    def move_contents(self, name: bytes, target: pathlib.Path) -> None:
        """Move what landed below the directory `name` into the directory `target`."""
        try:
            with _opened(target) as outer, self._folder((name,)) as inner:
                for entry in os.listdir(inner):
                    _merge(inner, os.fsencode(entry), outer, os.fsencode(entry))
        except OSError as problem:
            raise errors.HostError(
                f"Cannot write into '{target}': {problem.strerror or problem}."
            ) from None


@contextlib.contextmanager
def within(directory: pathlib.Path) -> Iterator[Landing]:
    """Make a landing place in the directory that files go to; it goes with the block."""
    try:
        made = tempfile.mkdtemp(prefix=".vmctl-", dir=directory)
    except OSError as problem:
        raise errors.HostError(
            f"Cannot write into '{directory}': {problem.strerror or problem}."
        ) from None
    place = Landing(pathlib.Path(made))
    try:
        yield place
    finally:
        place.close()
        shutil.rmtree(made, ignore_errors=True)


def split(name: bytes) -> tuple[bytes, ...]:
    """Return the components of a name that a guest sent. Raises RefusedError for one that escapes.

    Only relative names without `..` are asked for, so others come from nobody honest.
    """
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if (
        name.startswith(b"/")
        or b".." in parts
        or len(name) > _LONGEST_PATH
        or len(parts) > _DEEPEST
    ):
        raise errors.RefusedError(
            f"The guest sent a file under the name '{_text(name[:200])}', which is outside of what "
            "was asked for. Nothing was copied."
        )
    return parts


def inside(parts: tuple[bytes, ...], target: bytes) -> bool:
    """Tell whether a link at `parts` leads to something below the first of them, or to that.

    A `..` behind a name is not followed: the name may be another link.
    """
    steps = [part for part in target.split(b"/") if part not in (b"", b".")]
    ups = 0
    while ups < len(steps) and steps[ups] == b"..":
        ups += 1
    escapes = target.startswith(b"/") or b".." in steps[ups:] or not target
    return not escapes and ups <= len(parts) - 2


def _through_a_link(name: bytes) -> errors.RefusedError:
    return errors.RefusedError(
        f"The guest sent entries below '{_text(name)}', which is no directory: "
        "they would go through a link. Nothing was copied."
    )


def _clear(folder: int, name: bytes) -> None:
    """Make room for an entry that comes a second time."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _write(folder: int, name: bytes, entry: Entry, content: Iterable[bytes]) -> None:
    descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
    try:
        segments = iter(entry.segments if entry.segments is not None else ((0, entry.size),))
        place = left = 0
        for piece in content:
            data = piece
            while data:
                if not left:
                    place, left = next(segments)
                part, data = data[:left], data[left:]
                _write_part(descriptor, part, place)
                place += len(part)
                left -= len(part)
        os.ftruncate(descriptor, entry.size)
        os.fchmod(descriptor, entry.mode & _PERMISSIONS)
        _set_time(descriptor, entry.mtime)
    finally:
        os.close(descriptor)


def _write_part(descriptor: int, data: bytes, place: int) -> None:
    """Write at `place`; zeros become a hole."""
    if data == bytes(len(data)):
        return
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written


def _set_time(descriptor: int, mtime: int) -> None:
    with contextlib.suppress(OverflowError, OSError):
        os.utime(descriptor, (mtime, mtime))


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[int]:
    """Open a directory that the user named: links on the way there are the user's own."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _merge(source: int, name: bytes, target: int, new_name: bytes) -> None:
    """Move an entry from one directory to another, and a directory into one that is there."""
    try:
        there = os.stat(new_name, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        there = None
    is_folder = stat.S_ISDIR(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode)
    if there is None or (not is_folder and not stat.S_ISDIR(there.st_mode)):
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        return
    if not is_folder or not stat.S_ISDIR(there.st_mode):
        raise errors.ConflictError(
            f"'{_text(new_name)}' is there already and is "
            f"{'no directory' if is_folder else 'a directory'}.",
            hint="Remove it, or copy to another name.",
        )
    inner = os.open(name, _FOLDER, dir_fd=source)
    try:
        outer = os.open(new_name, _FOLDER, dir_fd=target)
        try:
            for entry in os.listdir(inner):
                _merge(inner, os.fsencode(entry), outer, os.fsencode(entry))
        finally:
            os.close(outer)
    finally:
        os.close(inner)


def _shown(parts: tuple[bytes, ...]) -> str:
    return _text(b"/".join(parts)) or "."


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
