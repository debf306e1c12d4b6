"""The one place that runs programs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from vmctl import errors, interruption
from vmctl.deadline import Deadline

_KEPT_OUTPUT = 4096
_SHOWN_COMMAND = 400
_LOOK_SECONDS = 0.1
_LAST_WORDS_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of a child (see setrlimit(2)): bytes of address space, seconds of CPU."""

    address_space: int = 0
    cpu_seconds: int = 0
    file_size: int = 0

    def prefix(self) -> list[str]:
        """Return the words that put the limits on a command.

        They call prlimit(1): code between fork and exec is not safe in a process with threads.
        """
        wanted = (
            ("as", self.address_space),
            ("cpu", self.cpu_seconds),
            ("fsize", self.file_size),
        )
        return ["prlimit", *(f"--{kind}={value}" for kind, value in wanted if value), "--"]


@dataclasses.dataclass(frozen=True, slots=True)
class Completed:
    """What a program left behind; `status` is negative for a signal."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are not UTF-8 are replaced."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def complaint(self) -> str:
        """The end of standard error as text."""
        return self.stderr[-_KEPT_OUTPUT:].decode("utf-8", "replace").strip()


def find(program: str) -> str | None:
    """Return the path of `program`, also where sbin is not on PATH, or None."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(program, path=path)


def run(  # noqa: PLR0913  (subprocess.run has more)
    argv: Sequence[str | os.PathLike[str]],
    deadline: Deadline,
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
    check: bool = True,
    interruptible: bool = False,
) -> Completed:
    """Run a program to its end and return what it printed.

    The child gets its own process group, which is killed when the deadline passes. `env` is added
    to the environment; messages come in English. `interruptible` is for programs without input
    whose result is thrown away when they do not end: Ctrl-C ends those at once, all others go on
    to their end. Raises HostError when the program is missing, WaitTimeoutError at the deadline,
    InterruptError, ProgramError on a status other than 0 unless `check` is off.
    """
    command = [os.fspath(word) for word in argv]
    if interruptible:
        # Python 3.11 loses input where `communicate` is called again after its timeout.
        assert not stdin
        interruption.stop_if_unwanted()
    with subprocess.Popen(
        [*(limits.prefix() if limits else []), *_found(command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
        cwd=cwd,
        start_new_session=True,
    ) as child:
        try:
            stdout, stderr = _communicate(child, stdin, deadline, interruptible=interruptible)
        except BaseException as problem:
            _kill(child)
            if isinstance(problem, subprocess.TimeoutExpired):
                raise errors.WaitTimeoutError(
                    f"'{_shown(command)}' did not end within {deadline.seconds:.0f} s."
                ) from None
            raise
    done = Completed(tuple(command), child.returncode, stdout, stderr)
    if check and done.status != 0:
        raise failure(done)
    return done


def _communicate(
    child: subprocess.Popen[bytes], stdin: bytes, deadline: Deadline, *, interruptible: bool
) -> tuple[bytes, bytes]:
    """Return what a program printed; raises TimeoutExpired, InterruptError once it is unwanted."""
    while interruptible and interruption.possible():
        try:
            return child.communicate(timeout=min(_LOOK_SECONDS, deadline.remaining))
        except subprocess.TimeoutExpired:
            if deadline.passed:
                raise
        interruption.stop_if_unwanted()
    return child.communicate(stdin, timeout=deadline.remaining)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a program's process group, and wait until all that it started has let go of the pipes.

    Whoever removes its files next must not meet somebody who still writes there.
    """
    _signal(child, signal.SIGKILL, group=True)
    with contextlib.suppress(subprocess.TimeoutExpired, OSError, ValueError):
        child.communicate(timeout=_LAST_WORDS_SECONDS)


Child = subprocess.Popen[bytes]
"""A program that runs beside us; its streams are pipes."""

_END_SECONDS = 5.0


@contextlib.contextmanager
def beside(argv: Sequence[str | os.PathLike[str]], *, terminal: bool = False) -> Iterator[Child]:
    """Run a program for the length of the block, with pipes for its streams.

    `terminal` leaves it our own standard input and process group: it talks to the person there.
    If it still runs at the end of the block, it is ended with all that it started. Raises HostError
    when it is missing.
    """
    child = subprocess.Popen(
        _found(argv),
        stdin=None if terminal else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "LC_ALL": "C.UTF-8"} if not terminal else None,
        start_new_session=not terminal,
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            _signal(child, signal.SIGTERM, group=not terminal)
            try:
                child.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                _signal(child, signal.SIGKILL, group=not terminal)
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                stream.close()


def ended(child: Child, seconds: float) -> bool:
    """Tell whether a program has ended by itself, or does so within some seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(seconds)
    return child.returncode is not None


def _signal(child: Child, number: signal.Signals, *, group: bool) -> None:
    """Send a signal to a program, or to all that it started too: its process group."""
    with contextlib.suppress(ProcessLookupError):
        if group:
            os.killpg(child.pid, number)
        else:
            child.send_signal(number)


def replace(argv: Sequence[str | os.PathLike[str]]) -> NoReturn:
    """Become another program, which keeps our process, terminal and streams.

    Raises HostError when the program is missing.
    """
    command = _found(argv)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Python ignores it, and what is ignored stays so in the next program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606  (no shell is the point)


def _found(argv: Sequence[str | os.PathLike[str]]) -> list[str]:
    command = [os.fspath(word) for word in argv]
    program = find(command[0])
    if program is None:
        raise errors.HostError(
            f"The program '{command[0]}' is not installed.", hint="Run: vmctl doctor"
        )
    return [program, *command[1:]]


def _shown(command: Sequence[str]) -> str:
    """Return a command as people can read it: the beginning tells what it was."""
    text = shlex.join(command)
    return text if len(text) <= _SHOWN_COMMAND else f"{text[:_SHOWN_COMMAND]}…"


def failure(done: Completed) -> errors.ProgramError:
    """Return the error that says how a program ended."""
    if done.status < 0:
        how = f"was killed by {signal.Signals(-done.status).name}"
    else:
        how = f"failed with status {done.status}"
    return errors.ProgramError(f"'{_shown(done.argv)}' {how}.", details=done.complaint)
