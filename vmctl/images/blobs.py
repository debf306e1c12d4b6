"""The files of a container image, in a directory or in a tar archive, without unpacking either."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
import stat
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from vmctl import errors, interruption, process
from vmctl.deadline import Deadline
from vmctl.images import tarball
from vmctl.images.tarball import CHUNK, Kind

LARGEST = 64 << 30
"""Most bytes that are ever unpacked from one file (ten times the largest images of today)."""

_LARGEST_JSON = 4 << 20
_MOST_FILES = 10_000
_MOST_LINKS = 8
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_UNPACKED = "unpacked"


class Source(Protocol):
    """Where the files of a container image come from; names are relative, with slashes."""

    def find(self, name: str) -> Piece | None:
        """Return a file, or None where there is none of this name."""


class Piece:
    """A range of an open file, read from its beginning to its end. The descriptor is not owned."""

    def __init__(self, descriptor: int, place: int, size: int) -> None:
        self._descriptor = descriptor
        self._begin = self._place = place
        self.size = size

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes."""
        wanted = min(size, self._begin + self.size - self._place)
        data = os.pread(self._descriptor, wanted, self._place) if wanted > 0 else b""
        self._place += len(data)
        return data

    def skip(self, size: int) -> None:
        """Go on `size` bytes further."""
        self._place += size

    def again(self) -> Piece:
        """Return the same range, to be read from its beginning."""
        return Piece(self._descriptor, self._begin, self.size)


class Archived:
    """A container image in a tar archive that lies open."""

    def __init__(self, descriptor: int, what: str, deadline: Deadline) -> None:
        self._descriptor = descriptor
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        whole = Piece(descriptor, 0, os.fstat(descriptor).st_size)
        archive = tarball.Archive(whole, what, whole.skip)
        for member in archive:
            refuse_to_be_late(what, deadline)
            name = os.path.normpath(os.fsdecode(member.name))
            if member.kind is Kind.FILE:
                self._places[name] = (member.place, member.size)
            elif member.kind in (Kind.SYMLINK, Kind.HARDLINK):
                # Older versions of `docker save` write a layer that two images share once.
                above = os.path.dirname(name) if member.kind is Kind.SYMLINK else ""
                target = os.path.join(above, os.fsdecode(member.target))
                self._links[name] = os.path.normpath(target)
            if len(self._places) + len(self._links) > _MOST_FILES:
                raise archive.refused("holds more files than any container image has")

    def find(self, name: str) -> Piece | None:
        """Return a member; links are followed within the archive."""
        name = os.path.normpath(name)
        for _ in range(_MOST_LINKS):
            if name in self._places:
                return Piece(self._descriptor, *self._places[name])
            name = self._links.get(name, "")
        return None


class Directory:
    """A container image in a directory. Links in it are not followed."""

    def __init__(self, path: pathlib.Path, stack: contextlib.ExitStack) -> None:
        self._path = path
        self._stack = stack

    def find(self, name: str) -> Piece | None:
        """Return a regular file below the directory."""
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts):
            return None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        above = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts[:-1]:
                below = os.open(part, flags | os.O_DIRECTORY, dir_fd=above)
                os.close(above)
                above = below
            descriptor = os.open(parts[-1], flags, dir_fd=above)
        except OSError:
            return None
        finally:
            os.close(above)
        self._stack.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        return Piece(descriptor, 0, status.st_size) if stat.S_ISREG(status.st_mode) else None


@contextlib.contextmanager
def opened(path: pathlib.Path, spool: pathlib.Path, deadline: Deadline) -> Iterator[Source]:
    """Open a directory or a tar archive (compressed or not); `spool` is an empty directory.

    Raises NotFoundError, RefusedError, HostError.
    """
    with contextlib.ExitStack() as stack:
        if path.is_dir():
            yield Directory(path, stack)
            return
        descriptor = _open_file(path)
        stack.callback(os.close, descriptor)
        whole = Piece(descriptor, 0, os.fstat(descriptor).st_size)
        what = f"The archive '{path}'"
        if whole.again().read(4).startswith((_GZIP, _ZSTD)):
            descriptor = _unpacked(whole, spool, what, deadline)
            stack.callback(os.close, descriptor)
        yield Archived(descriptor, what, deadline)


def _open_file(path: pathlib.Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise errors.NotFoundError(f"There is no file '{path}'.") from None
    except OSError as problem:
        raise errors.HostError(f"Cannot read '{path}': {problem.strerror}.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise errors.RefusedError(
            f"'{path}' is neither a directory nor a regular file.", hint="Name the file itself."
        )
    return descriptor


def _unpacked(piece: Piece, spool: pathlib.Path, what: str, deadline: Deadline) -> int:
    """Unpack a compressed archive into a file without a name of its own, and return it open."""
    plain = spool / "archive"
    with plain.open("x+b") as target:
        plain.unlink()
        with uncompressed(piece, spool, what, deadline) as stream:
            while data := stream.read(CHUNK):
                refuse_to_be_late(what, deadline)
                target.write(data)
        target.flush()
        return os.dup(target.fileno())


def read_json(source: Source, name: str, what: str) -> Any:
    """Return what a JSON file of the image says. Raises RefusedError, also for one too large."""
    piece = source.find(name)
    if piece is None:
        raise errors.RefusedError(
            f"{what} lacks the file '{name}'.", hint="Make it again: the image is not complete."
        )
    if piece.size > _LARGEST_JSON:
        raise errors.RefusedError(f"The file '{name}' of {what} is too large to be what it says.")
    try:
        return json.loads(piece.read(piece.size))
    except (ValueError, RecursionError):
        raise errors.RefusedError(f"The file '{name}' of {what} is not JSON.") from None


def described(descriptor: Any, what: str) -> tuple[str, str, int]:
    """Return media type, digest and size of an OCI descriptor. Raises RefusedError."""
    known: Mapping[str, Any] = descriptor if isinstance(descriptor, dict) else {}
    digest, size = known.get("digest"), known.get("size")
    if not isinstance(digest, str) or not re.fullmatch(
        r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", digest
    ):
        raise errors.RefusedError(f"{what} names a part without a digest that vmctl knows.")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise errors.RefusedError(f"{what} names a part without a size.")
    return str(known.get("mediaType", "")), digest, size


def verified(source: Source, digest: str, size: int, what: str, deadline: Deadline) -> Piece:
    """Return the blob with this digest (ALGORITHM:HEX) after reading all of it.

    Raises RefusedError where it is missing or other than it should be.
    """
    algorithm, _, expected = digest.partition(":")
    piece = source.find(f"blobs/{algorithm}/{expected}")
    if piece is None:
        raise errors.RefusedError(
            f"{what} lacks the part '{digest}'.",
            hint="Make it again with all its layers in it.",
        )
    actual = hashlib.new(algorithm)
    while data := piece.read(CHUNK):
        refuse_to_be_late(what, deadline)
        actual.update(data)
    if actual.hexdigest() != expected or piece.size != size:
        raise errors.RefusedError(
            f"A part of {what[:1].lower()}{what[1:]} is damaged: '{digest}' should have {size} "
            f"bytes, and there are {piece.size} with digest '{algorithm}:{actual.hexdigest()}'.",
            hint="Make it again, or fetch it again.",
        )
    return piece.again()


@contextlib.contextmanager
def uncompressed(
    piece: Piece, spool: pathlib.Path, what: str, deadline: Deadline
) -> Iterator[tarball.Stream]:
    """Open a file's content for the block: gzip and zstd are unpacked, by their first bytes."""
    magic = piece.again().read(4)
    if magic.startswith(_GZIP):
        yield _Bounded(_Gunzip(piece.again(), what), what)
    elif magic == _ZSTD:
        with _unzstd(piece.again(), spool, what, deadline).open("rb", buffering=0) as stream:
            (spool / _UNPACKED).unlink()
            yield _Bounded(stream, what)
    else:
        yield piece.again()


class _Bounded:
    """A stream that may only be so long."""

    def __init__(self, stream: tarball.Stream, what: str) -> None:
        self._stream = stream
        self._what = what
        self._left = LARGEST

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise errors.RefusedError(
                f"{self._what} unpacks to more than {LARGEST >> 30} GiB and is refused."
            )
        return data


class _Gunzip:
    """Unpacks gzip, also of several members (as pigz and eStargz write it)."""

    def __init__(self, piece: Piece, what: str) -> None:
        self._piece = piece
        self._what = what
        self._machine = zlib.decompressobj(wbits=31)
        self._input = b""

    def read(self, size: int, /) -> bytes:
        # To zlib 0 means "as much as there is".
        while size > 0:
            if not self._input:
                self._input = self._piece.read(CHUNK)
            if self._machine.eof:
                if not self._input.lstrip(b"\0"):
                    return b""
                self._machine = zlib.decompressobj(wbits=31)
            try:
                data = self._machine.decompress(self._input, size)
            except zlib.error as problem:
                raise self._damaged(str(problem)) from None
            ended = not self._input and not data
            self._input = self._machine.unused_data or self._machine.unconsumed_tail
            if data:
                return data
            if ended and not self._machine.eof:
                raise self._damaged("it is cut short")
        return b""

    def _damaged(self, why: str) -> errors.RefusedError:
        return errors.RefusedError(
            f"{self._what} is damaged: {why}.", hint="Make it again, or fetch it again."
        )


def _unzstd(piece: Piece, spool: pathlib.Path, what: str, deadline: Deadline) -> pathlib.Path:
    """Unpack zstd with the program of that name, into a file in the spool."""
    packed, plain = spool / "packed.zst", spool / _UNPACKED
    with packed.open("wb") as target:
        while data := piece.read(CHUNK):
            target.write(data)
    limits = process.Limits(address_space=1 << 30, file_size=LARGEST)
    words = ["zstd", "-d", "-q", "-f", "-o", plain.name, packed.name]
    done = process.run(words, deadline, cwd=spool, limits=limits, check=False, interruptible=True)
    packed.unlink()
    if done.status != 0:
        plain.unlink(missing_ok=True)
        raise errors.RefusedError(f"{what} cannot be unpacked.", details=done.complaint)
    return plain


def refuse_to_be_late(what: str, deadline: Deadline) -> None:
    """Raise WaitTimeoutError when the deadline has passed, InterruptError after Ctrl-C."""
    interruption.stop_if_unwanted()
    if deadline.passed:
        raise errors.WaitTimeoutError(
            f"{what} was not read to its end within {deadline.seconds:.0f} s."
        )
