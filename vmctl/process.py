"""The one place that runs programs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence

from vmctl import errors
from vmctl.deadline import Deadline

_KEPT_OUTPUT = 4096


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


def run(
    argv: Sequence[str | os.PathLike[str]],
    deadline: Deadline,
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and return what it printed.

    The child gets its own process group, which is killed when the deadline passes. `env` is added
    to the environment; messages come in English. Raises HostError when the program is missing,
    WaitTimeoutError at the deadline, ProgramError on a status other than 0 unless `check` is off.
    """
    command = [os.fspath(word) for word in argv]
    program = find(command[0])
    if program is None:
        raise errors.HostError(
            f"The program '{command[0]}' is not installed.", hint="Run: vmctl doctor"
        )
    with subprocess.Popen(
        [*(limits.prefix() if limits else []), program, *command[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
        cwd=cwd,
        start_new_session=True,
    ) as child:
        try:
            stdout, stderr = child.communicate(stdin, timeout=deadline.remaining)
        except BaseException as problem:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            if isinstance(problem, subprocess.TimeoutExpired):
                raise errors.WaitTimeoutError(
                    f"'{shlex.join(command)}' did not end within {deadline.seconds:.0f} s."
                ) from None
            raise
    done = Completed(tuple(command), child.returncode, stdout, stderr)
    if check and done.status != 0:
        raise failure(done)
    return done


def failure(done: Completed) -> errors.ProgramError:
    """Return the error that says how a program ended."""
    if done.status < 0:
        how = f"was killed by {signal.Signals(-done.status).name}"
    else:
        how = f"failed with status {done.status}"
    return errors.ProgramError(f"'{shlex.join(done.argv)}' {how}.", details=done.complaint)
