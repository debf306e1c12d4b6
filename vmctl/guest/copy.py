"""Copies files into a guest and out of it: tar streams over ssh, which need only sh and tar there.

Copying a directory copies all below it. A link named by the user is followed, links below a
directory stay links. Permission bits and times (whole seconds) are kept; owners are not: files
belong to whoever takes them. Directories stay open to their owner. Holes stay holes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import stat
import time
from collections.abc import Callable, Iterator, Sequence

from vmctl import errors
from vmctl.guest import archive, copy_scripts, landing, remote, shell
from vmctl.guest import session as sessions
from vmctl.guest.archive import Entry, Kind
from vmctl.guest.landing import Landing, Summary
from vmctl.guest.session import Session, Stop
from vmctl.guest.shell import Request
from vmctl.guest.ssh import Access

Told = Callable[[int, int], None]
"""Takes the bytes that are done, and how many there are in all (0 where that is not known)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a copy goes: `user` reads or writes in the guest, empty for the login's own."""

    access: Access
    told: Told
    stop: Stop
    user: str = ""


_CHUNK = 1 << 18
_PERMISSIONS = 0o777
_OPEN = 0o700
_TELL_SECONDS = 0.1
_LONGEST_ANSWER = 64
_CHANGED = 1
"""Status of GNU tar where a file changed while it was read."""


def from_guest(way: Way, source: str, target: pathlib.Path) -> Summary:
    """Copy a file or a directory of the guest to `target`, or into it where it is a directory.

    Raises NotFoundError for what is not there, RefusedError for an archive that wants to be
    written elsewhere: nothing is written then.
    """
    return remote.connected(way.access, lambda within: _from_guest(way, source, target, within))


def _from_guest(way: Way, source: str, target: pathlib.Path, within: float) -> Summary:
    final, access = _final(source, target), way.access
    with _session(way, copy_scripts.SEND, (source,), within) as (session, said):
        pieces = session.pieces()
        answer, pieces = _answer(pieces)
        if answer in ("missing", "special"):
            _refuse_source(access, source, answer)
        if answer not in ("file", "directory"):
            raise _failed(access, session, said)
        contents = _contents(source) and final.is_dir()
        with landing.within(final if contents else final.parent) as place:
            try:
                _land(place, _counted(pieces, way.told), single=answer == "file")
            except archive.EarlyEndError:
                if session.ended() != 0:
                    raise _failed(access, session, said) from None
                raise
            if session.ended() not in (0, _CHANGED):
                raise _failed(access, session, said)
            place.finish()
            if contents:
                place.move_contents(_ROOT, final)
            else:
                place.move(_ROOT, final)
            return place.summary


_ROOT = b"copy"
"""The name under which the source lands."""


def _land(place: Landing, pieces: Iterator[bytes], *, single: bool) -> None:
    """Put all entries into the landing place; the first one is the source itself."""
    reader = archive.Reader(pieces)
    count = 0
    for entry in reader.entries():
        # A single file is called what the user calls it, whatever the guest does.
        parts = () if single else landing.split(entry.name)
        if count == 0:
            expected = entry.kind is (Kind.FILE if single else Kind.DIRECTORY) and not parts
        else:
            expected = not single
        if not expected:
            raise _other_than_asked()
        place.put((_ROOT, *parts), entry, reader.content())
        count += 1
    if count == 0:
        raise archive.EarlyEndError("The guest sent an empty archive. Nothing was copied.")


def _other_than_asked() -> errors.RefusedError:
    return errors.RefusedError(
        "The guest sent something else than the file or directory that was asked for. "
        "Nothing was copied."
    )


def _refuse_source(access: Access, source: str, answer: str) -> None:
    if answer == "missing":
        raise errors.NotFoundError(
            f"Machine '{access.name}' has no '{source}', or '{access.user}' may not see it.",
            hint=f"Look: vmctl exec {access.name} -- ls -la",
        )
    raise errors.UsageError(f"'{source}' in machine '{access.name}' is no file and no directory.")


def _final(source: str, target: pathlib.Path) -> pathlib.Path:
    """Return the name that the copy gets. Raises NotFoundError where its directory is missing."""
    into = target.is_dir()
    if into and _contents(source):
        return target
    name = os.path.basename(source.rstrip("/"))
    if into:
        if name in ("", ".", "..", "~"):
            raise errors.UsageError(
                f"The copy of '{source}' needs a name of its own.",
                hint=f"Name it: {target}/NAME; or copy what is in it: {source.rstrip('/')}/.",
            )
        return target / name
    if not target.parent.is_dir():
        raise errors.NotFoundError(f"There is no directory '{target.parent}' to copy into.")
    return target


def _contents(source: str) -> bool:
    """True for DIRECTORY/. which stands for what is in it."""
    return source in (".", "") or source.endswith("/.")


def to_guest(way: Way, sources: Sequence[pathlib.Path], target: str) -> Summary:
    """Copy files and directories into the guest: to `target`, or into it where it is a directory.

    Raises NotFoundError for a source that is not there, UsageError where several would get one
    name.
    """
    plan = _Plan(sources)
    return remote.connected(way.access, lambda within: _to_guest(way, plan, target, within))


class _Plan:
    """What goes into the guest: the entries in their order, and what is left out."""

    def __init__(self, sources: Sequence[pathlib.Path]) -> None:
        self.names: list[str] = []
        self.total = 0
        self.left_out: list[str] = []
        self.files: list[tuple[pathlib.Path, str]] = []
        for source in sources:
            self._add(source)

    @property
    def only(self) -> str:
        """The name of the only source, empty where there are several or only contents."""
        return self.names[0] if len(self.names) == 1 and self.names[0] else ""

    def _add(self, source: pathlib.Path) -> None:
        if not source.exists():
            raise errors.NotFoundError(f"There is no '{source}' to copy.")
        contents = _contents(os.fspath(source)) or source.name in ("", "..")
        name = "" if contents else source.name
        if name in self.names:
            raise errors.UsageError(
                f"Two of the sources are called '{name}': one would replace the other."
            )
        self.names.append(name)
        self._walk(source.resolve(), f"tree/{name}".rstrip("/"))

    def _walk(self, path: pathlib.Path, name: str) -> None:
        try:
            found = path.lstat()
        except OSError as problem:
            raise _unreadable(path, problem) from None
        if stat.S_ISREG(found.st_mode):
            self.total += found.st_size
        elif not (stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            self.left_out.append(f"'{path}' is neither file, directory nor link")
            return
        self.files.append((path, name))
        if stat.S_ISDIR(found.st_mode):
            try:
                inner = sorted(os.listdir(path))
            except OSError as problem:
                raise _unreadable(path, problem) from None
            for each in inner:
                self._walk(path / each, f"{name}/{each}")
            # Again, for its time, which the entries below it have changed.
            self.files.append((path, name))


def _to_guest(way: Way, plan: _Plan, target: str, within: float) -> Summary:
    access = way.access
    several = "several" if len(plan.names) > 1 else ""
    words = (target, several, plan.only)
    with _session(way, copy_scripts.RECEIVE, words, within) as (session, said):
        pieces = session.pieces()
        answer, _ = _answer(pieces)
        if answer in ("not-a-directory", "no-parent"):
            _refuse_target(access, target, answer)
        if not answer.startswith("ready-"):
            raise _failed(access, session, said)
        sender = _Sender(session, plan.total, way.told, holes=answer == "ready-gnu")
        try:
            for path, name in plan.files:
                sender.send(path, os.fsencode(name))
            sender.end()
        except BrokenPipeError:
            raise _failed(access, session, said) from None
        for _ in pieces:
            pass
        if session.ended() != 0:
            raise _failed(access, session, said)
        sender.summary.left_out += plan.left_out
        return sender.summary


def _refuse_target(access: Access, target: str, answer: str) -> None:
    if answer == "no-parent":
        parent = os.path.dirname(target) or "."
        raise errors.NotFoundError(
            f"Machine '{access.name}' has no directory '{parent}' to copy into.",
            hint=f"Make it: vmctl exec {access.name} -- mkdir -p {parent}",
        )
    raise errors.NotFoundError(
        f"'{target}' in machine '{access.name}' is no directory to copy into.",
        hint=f"Make it: vmctl exec {access.name} -- mkdir -p {target}",
    )


class _Sender:
    """Writes the archive into the guest."""

    def __init__(self, session: Session, total: int, told: Told, *, holes: bool) -> None:
        self._session = session
        self._told = _Teller(total, told)
        self._holes = holes
        self._seen: set[bytes] = set()
        self.summary = Summary()

    def send(self, path: pathlib.Path, name: bytes) -> None:
        """Send one file, directory or link under a name."""
        try:
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                with path.open("rb", buffering=0) as stream:
                    self._file(stream.fileno(), name)
                return
            target = os.readlink(os.fsencode(path)) if stat.S_ISLNK(found.st_mode) else b""
        except BrokenPipeError:
            raise
        except OSError as problem:
            raise _unreadable(path, problem) from None
        kind = Kind.LINK if target else Kind.DIRECTORY
        mode = found.st_mode & _PERMISSIONS | _OPEN
        mtime = int(found.st_mtime)
        entry = Entry(name=name, kind=kind, mode=mode, mtime=mtime, target=target)
        self._session.send(archive.header(entry))
        self._told.add(0)

    def _file(self, descriptor: int, name: bytes) -> None:
        found = os.fstat(descriptor)
        sparse = self._holes and found.st_blocks * 512 < found.st_size
        segments = tuple(_segments(descriptor, found.st_size)) if sparse else None
        entry = Entry(
            name=name,
            kind=Kind.FILE,
            size=found.st_size,
            mode=found.st_mode & _PERMISSIONS,
            mtime=int(found.st_mtime),
            segments=segments,
        )
        self._session.send(archive.header(entry))
        for offset, length in segments if segments is not None else ((0, found.st_size),):
            self._content(descriptor, offset, length, name)
        self._session.send(archive.padding(entry.stored))
        self._told.add(entry.size - entry.stored)
        self.summary.files += 1
        self.summary.size += entry.size

    def _content(self, descriptor: int, offset: int, length: int, name: bytes) -> None:
        while length:
            data = os.pread(descriptor, min(_CHUNK, length), offset)
            if not data:
                raise errors.ConflictError(
                    f"'{os.fsdecode(name).removeprefix('tree/')}' became shorter while it was "
                    "copied. Nothing was changed in the guest.",
                    hint="Copy it when nobody writes to it.",
                )
            self._session.send(data)
            self._told.add(len(data))
            offset, length = offset + len(data), length - len(data)

    def end(self) -> None:
        """Say that all was sent."""
        self._session.send(archive.header(Entry(name=b"complete", kind=Kind.FILE)))
        self._session.send(archive.END)
        self._session.close_input()


def _segments(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where a file has content, as its file system knows it."""
    place = 0
    while place < size:
        try:
            begin = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole up to the end
            return
        end = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
        if end <= begin:
            return
        yield begin, end - begin
        place = end


class _Teller:
    """Says how far it is, but not at every piece."""

    def __init__(self, total: int, told: Told) -> None:
        self._total = total
        self._told = told
        self._done = 0
        self._next = time.monotonic() + _TELL_SECONDS

    def add(self, count: int) -> None:
        """Take in that more is done."""
        self._done += count
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _TELL_SECONDS
            self._told(self._done, self._total)


def _counted(pieces: Iterator[bytes], told: Told) -> Iterator[bytes]:
    teller = _Teller(0, told)
    for piece in pieces:
        teller.add(len(piece))
        yield piece


def _answer(pieces: Iterator[bytes]) -> tuple[str, Iterator[bytes]]:
    """Return the first line, and what follows it."""
    text = b""
    for piece in pieces:
        text += piece
        if b"\n" in text or len(text) > _LONGEST_ANSWER:
            break
    line, _, rest = text.partition(b"\n")

    def following() -> Iterator[bytes]:
        if rest:
            yield rest
        yield from pieces

    return line[:_LONGEST_ANSWER].decode("ascii", "replace"), following()


@contextlib.contextmanager
def _session(
    way: Way, script: str, words: tuple[str, ...], within: float
) -> Iterator[tuple[Session, bytearray]]:
    said = bytearray()

    def keep(data: bytes) -> None:
        said.extend(data)
        del said[:-4096]

    request = Request(argv=("sh", "-c", script, "vmctl", *words), user=way.user)
    with sessions.opened(
        way.access, lambda nonce: shell.script(request, nonce), keep, begin_within=within
    ) as session:
        way.stop.watch(session)
        yield session, said


def _failed(access: Access, session: Session, said: bytearray) -> errors.VmctlError:
    """Return the error for a copy that the guest gave up; raises where it never began."""
    session.close_input()
    for _ in session.pieces():
        pass
    status = session.ended()
    denied = b"Permission denied" in said
    return errors.GuestError(
        f"Machine '{access.name}' could not do its part of the copy (status {status}). "
        "Nothing was left half copied.",
        hint="As root it may work: vmctl cp -u root …" if denied else "",
        details=said.decode("utf-8", "replace"),
    )


def _unreadable(path: pathlib.Path, problem: OSError) -> errors.HostError:
    return errors.HostError(f"Cannot read '{path}': {problem.strerror or problem}.")
