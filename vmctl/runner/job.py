"""What to do in a machine that can be reached: files in, a command, files out.

`carry_out` is the same for every machine, however it came to be: cold, warm, or somebody else's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, Self

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import copy, remote, ssh
from vmctl.guest.remote import Streams
from vmctl.guest.session import Sink, Stop
from vmctl.guest.shell import Request
from vmctl.guest.ssh import Access
from vmctl.runner.timings import Stage, Timings

OWN_FAILURE = 125
"""Status where vmctl itself, or the machine, failed; as docker has it."""

STALL_SECONDS = 60.0
"""How long a copy may go without moving anything; ten times as long under TCG, as all deadlines."""

COPY_SECONDS = 3600.0
"""How long a copy may take in all; ten times as long under TCG."""

_UNKNOWN = 67
"""Status of `_KNOWS` for a user whom the guest does not know: EX_NOUSER of sysexits.h."""

_KNOWS = (
    'case $1 in "#"*) exit 0;; esac; command -v id > /dev/null || exit 0; '
    f'[ "$(id -u)" = "$1" ] || id -u "$1" > /dev/null 2>&1 || exit {_UNKNOWN}'
)
"""Asks the guest whether it knows a user; `#1000` is a number for sudo, which needs no name."""

_LOOK_SECONDS = 0.1
_CAUSE_SECONDS = 1.0
"""How long after the connection the machine itself may take to be seen dead."""


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """A file or a directory: where it is, and where its copy goes; read as `vmctl cp` reads them.

    One of the two is a path of this host, the other one of the guest.
    """

    source: str
    target: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command and what goes with it; `timeout` in seconds, None for no limit.

    `env` reaches the guest through the pipe of ssh: it is in no list of processes and in no file.
    `user` is who runs it, empty for the machine's login. Relative paths of the guest, `workdir`
    too, begin in the login's home.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    workdir: str = ""
    user: str = ""
    copies_in: tuple[Copy, ...] = ()
    copies_out: tuple[Copy, ...] = ()
    timeout: float | None = None

    def require_sources(self) -> None:
        """Raise NotFoundError for what cannot be copied, before a machine is started for it."""
        for each in self.copies_in:
            if not pathlib.Path(each.source).exists():
                raise errors.NotFoundError(f"There is no '{each.source}' to copy in.")
        for each in self.copies_out:
            target = pathlib.Path(each.target)
            if not (target.is_dir() or target.parent.is_dir()):
                raise errors.NotFoundError(f"There is no directory '{target.parent}' to copy into.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended; `status` is what `vmctl run` ends with.

    That is the command's own, unless `problem` says why not: 124 where it was ended by its timeout,
    125 where vmctl or the machine failed, or a file could not be copied out of a guest whose
    command had succeeded. `remarks` are worth saying in any case.
    """

    status: int
    problem: errors.VmctlError | None = None
    remarks: tuple[str, ...] = ()

    @property
    def timed_out(self) -> bool:
        """True where the command was ended by its timeout."""
        return isinstance(self.problem, remote.CommandTimeoutError)

    @property
    def failed(self) -> bool:
        """True where it is not the command's fault: vmctl or the machine failed."""
        return self.problem is not None and not self.timed_out


class Guard(Protocol):
    """Looks after the machine while a job runs in it."""

    def trouble(self) -> errors.VmctlError | None:
        """Return why the machine cannot go on, or None; asked ten times a second."""

    def end(self) -> None:
        """Make the machine let go of whoever waits for it: pull its plug. Must not raise."""


def carry_out(
    access: Access,
    job: Job,
    streams: Streams,
    *,
    guard: Guard | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    timings: Timings | None = None,
) -> Outcome:
    """Do a job in a machine that ssh reaches, and tell how it ended.

    Files come out even where the command failed or was ended by its timeout. The connection is left
    open: `ssh.disconnect` ends it. Raises InterruptError once `cancelled` says so; every other
    failure is in the outcome.
    """
    clock = timings or Timings()
    with _Watching(access, guard, cancelled) as watching:
        try:
            for each in job.copies_in:
                with clock.stage(Stage.COPY_IN), watching.copying(job.user) as way:
                    copy.to_guest(way, [pathlib.Path(each.source)], each.target)
            status, problem = _run(access, job, _noting(streams, clock), clock)
        except errors.VmctlError as failure:
            status, problem = OWN_FAILURE, watching.cause(failure)
        if watching.problem is None:
            return _with_copies(watching, job, clock, status, problem)
    assert watching.problem is not None
    if isinstance(watching.problem, errors.InterruptError):
        raise watching.problem
    return Outcome(status=OWN_FAILURE, problem=watching.problem)


def _run(
    access: Access, job: Job, streams: Streams, clock: Timings
) -> tuple[int, errors.VmctlError | None]:
    request = Request(argv=job.argv, env=job.env, workdir=job.workdir, user=job.user)
    with clock.stage(Stage.COMMAND):
        deadline = Deadline.after(job.timeout) if job.timeout is not None else None
        try:
            _require_user(access, job.user, deadline)
            return remote.run(access, request, streams, timeout=deadline), None
        except remote.CommandTimeoutError as problem:
            return remote.COMMAND_TIMEOUT, problem


def _require_user(access: Access, user: str, timeout: Deadline | None) -> None:
    """Raise NotFoundError for a user whom the guest does not know.

    What su and sudo end with could be the command's own status, so that they are not asked.
    """
    if not user:
        return
    asked = Request(argv=("sh", "-c", _KNOWS, "sh", user))
    silent = Streams(stdin=None, stdout=_nowhere, stderr=_nowhere)
    if remote.run(access, asked, silent, timeout=timeout) == _UNKNOWN:
        raise errors.NotFoundError(f"The guest has no user '{user}' to run the command as.")


def _nowhere(_data: bytes) -> None:
    """Take what is of no interest."""


def _with_copies(
    watching: _Watching,
    job: Job,
    clock: Timings,
    status: int,
    problem: errors.VmctlError | None,
) -> Outcome:
    """Copy out what is there, and return the outcome: a missing file is no reason to lose another.

    It is what the job failed by only where nothing else was.
    """
    remarks: list[str] = []
    for each in job.copies_out:
        try:
            with clock.stage(Stage.COPY_OUT), watching.copying(job.user) as way:
                done = copy.from_guest(way, each.source, pathlib.Path(each.target))
            remarks += [f"left out of '{each.source}': {name}" for name in done.left_out]
        except errors.VmctlError as failure:
            if watching.problem is not None:
                break
            remarks.append(f"'{each.source}' was not copied out: {failure.message}")
            if status == 0:
                failure.message = remarks[-1]
                status, problem = OWN_FAILURE, failure
    if watching.problem is not None:
        if isinstance(watching.problem, errors.InterruptError):
            raise watching.problem
        status, problem = OWN_FAILURE, watching.problem
    return Outcome(status=status, problem=problem, remarks=tuple(remarks))


def _noting(streams: Streams, clock: Timings) -> Streams:
    """Return streams that note when the first byte comes."""

    def noted(sink: Sink) -> Sink:
        def take(data: bytes) -> None:
            clock.note_output()
            sink(data)

        return take

    return dataclasses.replace(streams, stdout=noted(streams.stdout), stderr=noted(streams.stderr))


class _Watching:
    """Ends a job whose machine fails, or that nobody wants any more, for the length of a block."""

    def __init__(self, access: Access, guard: Guard | None, cancelled: Callable[[], bool]) -> None:
        self.problem: errors.VmctlError | None = None
        self._access = access
        self._guard = guard
        self._cancelled = cancelled
        self._copy: _Copying | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="vmctl-guard", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def cause(self, failure: errors.VmctlError) -> errors.VmctlError:
        """Return why something failed: a machine that died takes the connection with it."""
        limit = Deadline.after(_CAUSE_SECONDS if _lost(failure) and self._guard else 0)
        while True:
            known = self.problem or (self._guard.trouble() if self._guard is not None else None)
            if known is not None or limit.passed:
                return known or failure
            limit.pause(_LOOK_SECONDS / 2)

    @contextlib.contextmanager
    def copying(self, user: str) -> Iterator[copy.Way]:
        """Have one copy end with the job, or when it gets nowhere; raises WaitTimeoutError then."""
        going = _Copying(self._access.patience)
        self._copy = going
        try:
            yield copy.Way(access=self._access, told=going.told, stop=going.stop, user=user)
        except errors.VmctlError as failure:
            if going.late:
                raise errors.WaitTimeoutError(going.late, details=failure.details) from failure
            raise
        finally:
            self._copy = None

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            going = self._copy
            if going is not None:
                going.look()
            if self.problem is None:
                self.problem = self._trouble()
            if self.problem is not None:
                # Again and again: a connection may be on its way at this moment.
                self._let_go()

    def _trouble(self) -> errors.VmctlError | None:
        if self._cancelled():
            return errors.InterruptError("Interrupted.")
        return self._guard.trouble() if self._guard is not None else None

    def _let_go(self) -> None:
        going = self._copy
        if going is not None:
            going.stop.now()
        if self._guard is not None:
            self._guard.end()
        ssh.disconnect(self._access)


def _lost(failure: errors.VmctlError) -> bool:
    """Tell whether something may have failed because the machine did."""
    return not isinstance(failure, errors.NotFoundError | errors.UsageError)


class _Copying:
    """One copy under way: ended when nothing moves any more, or at the end of its time.

    A guest decides how fast it takes and gives, and how much. `late` says why it was ended.
    """

    def __init__(self, patience: int) -> None:
        self.stop = Stop()
        self.late = ""
        self._stall = STALL_SECONDS * patience
        self._moved = Deadline.after(self._stall)
        self._whole = Deadline.after(COPY_SECONDS * patience)

    def told(self, _done: int, _total: int) -> None:
        """Take in that something moved."""
        self._moved = Deadline.after(self._stall)

    def look(self) -> None:
        """End the copy if it must; asked again and again."""
        if not self.late and self._whole.passed:
            self.late = f"The copy was not done within {self._whole.seconds:g} s and was ended."
        if not self.late and self._moved.passed:
            self.late = f"Nothing was copied for {self._stall:g} s; the copy was ended."
        if self.late:
            self.stop.now()


def parsed(words: tuple[str, ...], option: str) -> Iterator[Copy]:
    """Read SOURCE:TARGET words of an option; raises UsageError."""
    for word in words:
        source, colon, target = word.partition(":")
        if not (source and colon and target):
            raise errors.UsageError(
                f"{option} wants SOURCE:TARGET; got '{word}'.",
                hint=f"For example: {option} ./dist:/tmp/dist"
                if option == "--copy-in"
                else f"For example: {option} /tmp/report.xml:./report.xml",
            )
        yield Copy(source, target)
