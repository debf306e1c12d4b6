"""Fetches files over http, and goes on where it was interrupted.

What has come so far lies in the user's cache directory, under a name made from the address, until
somebody takes it. Whether a file is the right one is for the caller to say.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from vmctl import errors
from vmctl.images import partial, web
from vmctl.images.job import Progress
from vmctl.store import files, locks

MOST = 64 << 30
"""Largest file that is fetched (bytes)."""

_MOST_TEXT = 4 << 20
_CHUNK = 1 << 18
_TRIES = 4
"""So many times in a row a connection may break without much that has come."""

_HEADWAY = 1 << 16

_PATIENCE = 600.0
"""So long one waits for another process without seeing it make headway (seconds)."""

_POLL = 0.2
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_Result = TypeVar("_Result")


class _AnewError(Exception):
    """What has come so far is of no use: the file on the server is another one by now."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fetched:
    """A whole file in the cache directory; `resumed` says that it came in several pieces."""

    path: pathlib.Path
    size: int
    resumed: bool

    def discard(self) -> None:
        """Forget the file: it is not what it should be."""
        partial.Part(self.path).clear()


def text(url: str, progress: Progress, *, secure: bool = True) -> bytes:
    """Return a small file: checksums, a signature. Raises as `Turn.fetch` does."""
    name = urllib.parse.urlsplit(url).path.rpartition("/")[2]
    pulse = _pulse(progress, lambda: (f"fetching {name}", 0, 0))

    def ask() -> bytes:
        with web.opened(url, lambda _: {}, pulse, secure=secure) as answer:
            _require_success(answer, url)
            content = b""
            while piece := answer.read(_CHUNK):
                content += piece
                if len(content) > _MOST_TEXT:
                    raise errors.RefusedError(
                        f"'{web.shown(url)}' is longer than {_MOST_TEXT} bytes, too long for a "
                        "file of checksums."
                    )
            return content

    return _tried(ask, lambda: 0, pulse)


@contextlib.contextmanager
def turn(url: str, progress: Progress) -> Iterator[Turn]:
    """Wait until no other process fetches from this address, and keep others waiting meanwhile.

    It waits as long as the other one makes headway. `progress` is told bytes, and may raise to end
    it. Raises ConflictError, HostError.
    """
    part = partial.Part.of(url)
    partial.make_directory()
    with _alone(part, progress):
        yield Turn(url, part, progress)
        if not part.path.exists():
            part.clear()


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """The right to fetch from one address."""

    url: str
    part: partial.Part
    progress: Progress

    def fetch(self, *, secure: bool = True, most: int = MOST) -> Fetched:
        """Return the whole file, for the caller to move away before the turn ends.

        Left where it is, it need not come again. `secure` accepts https alone. Raises RefusedError,
        NotFoundError, HostError, and WaitTimeoutError when nothing comes any more.
        """
        partial.clear_stale(self.part)
        transfer = _Transfer(self.url, self.part, self.progress, secure, most)
        _tried(transfer.run, lambda: transfer.kept, transfer.pulse)
        return Fetched(self.part.path, self.part.size, transfer.resumed)


@contextlib.contextmanager
def _alone(part: partial.Part, progress: Progress) -> Iterator[None]:
    """Hold the download's lock, waiting as long as its holder makes headway."""
    seen, since = -1, time.monotonic()
    with contextlib.ExitStack() as held:
        while True:
            lock = locks.hold(part.lock, None, f"The download '{part.path.name}'")
            try:
                held.enter_context(lock)
                break
            except errors.ConflictError:
                if part.size != seen:
                    seen, since = part.size, time.monotonic()
                if time.monotonic() - since > _PATIENCE:
                    raise
            notes = partial.Notes.read(part)
            progress("waiting for another vmctl that fetches it", seen, notes.total if notes else 0)
            time.sleep(_POLL)
        yield


def _tried(ask: Callable[[], _Result], size: Callable[[], int], pulse: web.Pulse) -> _Result:
    """Return what `ask` returns; connections break, and as long as data comes it goes on."""
    failures = 0
    while True:
        before = size()
        try:
            return ask()
        except web.LostError as lost:
            failures = 1 if size() - before >= _HEADWAY else failures + 1
            if failures >= _TRIES:
                raise lost.problem from None
            again = time.monotonic() + 2.0 ** (failures - 1) / 2
            while time.monotonic() < again:
                pulse()
                time.sleep(_POLL)


def _pulse(progress: Progress, what: Callable[[], tuple[str, int, int]]) -> web.Pulse:
    return lambda: progress(*what())


class _Transfer:
    """One download in the making."""

    def __init__(
        self, url: str, part: partial.Part, progress: Progress, secure: bool, most: int
    ) -> None:
        self.url = url
        self.part = part
        self.resumed = False
        self._secure = secure
        self._most = most
        self._count = part.size
        self._total = 0
        self._speed = _Speed()
        self._progress = progress

    @property
    def kept(self) -> int:
        """How much of what has come another try can go on from (bytes)."""
        notes = partial.Notes.read(self.part)
        return self.part.size if notes is not None and (notes.etag or notes.modified) else 0

    def pulse(self) -> None:
        """Tell how far it has come."""
        done = f"{self._count >> 20}"
        whole = f"{done} of {self._total >> 20} MiB" if self._total else f"{done} MiB"
        self._progress(f"downloading {whole}{self._speed.text}", self._count, self._total)

    def run(self) -> None:
        """Fetch what is missing; raises `web.LostError` where another try may help."""
        try:
            self._ask()
        except _AnewError:
            self.part.clear()
            self.resumed = False
            self._ask()

    def _ask(self) -> None:
        notes = partial.Notes.read(self.part)
        offset = self.part.size if notes is not None else 0

        def headers(url: str) -> Mapping[str, str]:
            validator = notes.validator(url) if notes is not None and offset else ""
            if not validator:
                return {}
            return {"Range": f"bytes={offset}-", "If-Range": validator}

        with web.opened(self.url, headers, self.pulse, secure=self._secure) as answer:
            if answer.status == 416 and notes is not None:
                _require_complete(answer, notes, offset)
                return
            if answer.status == 206 and notes is not None and offset:
                _require_continued(answer, notes, offset)
                self.resumed = True
            else:
                _require_success(answer, self.url)
                self.resumed, offset = False, 0
            self._receive(answer, offset)

    def _receive(self, answer: web.Answer, offset: int) -> None:
        length = _number(answer.headers.get("Content-Length", ""))
        self._total = offset + length if length is not None else 0
        self._require_room(offset, length)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            target = os.open(self.part.path, flags, files.PRIVATE)
            try:
                if not offset:
                    os.ftruncate(target, 0)
                    notes = partial.Notes.of(answer.url, answer.headers, self._total)
                    files.write_json(self.part.notes, dataclasses.asdict(notes))
                self._copy(answer, target, offset)
            finally:
                os.close(target)
        except OSError as problem:
            if problem.errno in _FULL:
                raise _no_room(self.part.path.parent, self._total - self.part.size) from None
            raise files.unusable(self.part.path, problem) from None

    def _copy(self, answer: web.Answer, target: int, offset: int) -> None:
        self._count = offset
        self._speed = _Speed()
        while content := answer.read(_CHUNK):
            if not self._count and content.lstrip()[:9].lower().startswith(
                (b"<html", b"<!doctype")
            ):
                raise _web_page(self.url)
            left = memoryview(content)
            while left:
                left = left[os.write(target, left) :]
            self._count += len(content)
            self._speed.heard(len(content))
            if self._count > self._most:
                self.part.clear()
                raise _too_large(self.url, self._most)
        self._progress("downloaded", self._count, self._total or self._count)

    def _require_room(self, offset: int, length: int | None) -> None:
        if length is None:
            return
        if offset + length > self._most:
            raise _too_large(self.url, self._most)
        place = self.part.path.parent
        status = os.statvfs(place)
        kept = 0 if offset else self.part.size
        if length > status.f_bavail * status.f_frsize + kept:
            raise _no_room(place, length)


class _Speed:
    """How fast data comes, for people."""

    def __init__(self) -> None:
        self.text = ""
        self._since = time.monotonic()
        self._count = 0

    def heard(self, count: int) -> None:
        """Take note of bytes that came."""
        self._count += count
        passed = time.monotonic() - self._since
        if passed >= 1.0:
            self.text = f" ({self._count / passed / (1 << 20):.1f} MiB/s)"
            self._since, self._count = time.monotonic(), 0


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _require_success(answer: web.Answer, url: str) -> None:
    """Refuse any answer but a whole file."""
    status = answer.status
    shown = web.shown(answer.url)
    if status in (404, 410):
        raise errors.NotFoundError(
            f"The server has no '{shown}' (status {status}).",
            hint="The publisher may have moved it: look where it is now.",
        )
    if status in (408, 425, 429) or status >= 500:
        raise web.LostError(
            errors.HostError(
                f"The server cannot send '{shown}' at this time (status {status}).",
                hint="Try again later.",
            )
        )
    if status != 200:
        raise errors.HostError(
            f"The server does not give '{shown}' (status {status}).",
            hint="Open the address in a browser to see what it wants.",
        )
    if answer.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise _web_page(url)
    encoding = answer.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", ""):
        raise errors.RefusedError(
            f"The server sends '{shown}' in another form ('{encoding[:40]}') than it was asked for."
        )


def _require_continued(answer: web.Answer, notes: partial.Notes, offset: int) -> None:
    """Refuse what is no continuation of what has come so far."""
    form = re.fullmatch(
        r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)",
        answer.headers.get("Content-Range", "").strip(),
    )
    if form is None or int(form[1]) != offset:
        raise _AnewError
    if notes.total and form[3] not in ("*", str(notes.total)):
        raise _AnewError
    now = partial.Notes.of(answer.url, answer.headers, notes.total)
    if (
        notes.etag
        and now.etag
        and now.etag != notes.etag
        and notes.validator(answer.url) == (notes.etag)
    ):
        raise _AnewError


def _require_complete(answer: web.Answer, notes: partial.Notes, offset: int) -> None:
    """Take "there is nothing after what you have" for an end only where that is what was meant."""
    whole = answer.headers.get("Content-Range", "").strip() == f"bytes */{offset}"
    if not whole or notes.total not in (0, offset):
        raise _AnewError


def _web_page(url: str) -> errors.RefusedError:
    return errors.RefusedError(
        f"The server answers with a web page where '{web.shown(url)}' should be.",
        hint="Open the address in a browser: a network may want a login first, or the publisher "
        "may have moved the file.",
    )


def _too_large(url: str, most: int) -> errors.RefusedError:
    return errors.RefusedError(
        f"'{web.shown(url)}' is larger than {most} bytes, which is the most that is fetched."
    )


def _no_room(place: pathlib.Path, needed: int) -> errors.HostError:
    amount = f", and {-(-needed // (1 << 20))} MiB more are needed" if needed > 0 else ""
    return errors.HostError(
        f"The disk of '{place}' is full{amount}.",
        hint="Free some space, or choose another place: export XDG_CACHE_HOME=DIRECTORY. The same "
        "command goes on where this one stopped.",
    )
