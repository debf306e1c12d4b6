"""A process that goes on by itself, as daemon(7) has it; started before there are any threads."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from vmctl import errors
from vmctl.store import files

_BEGUN = b"\0"

_KEPT = re.compile(
    r"HOME|LOGNAME|USER|PATH|PYTHON.*|VIRTUAL_ENV|TMPDIR|TZ|LANG|LC_.*|XDG_.*|VMCTL_.*|LIBVIRT_.*"
    r"|LD_LIBRARY_PATH|DBUS_SESSION_BUS_ADDRESS|(HTTP|HTTPS|ALL|NO)_PROXY|(http|https|all|no)_proxy"
    r"|SSL_CERT_(FILE|DIR)"
)
"""What says where things are and how the network is reached; all else is the caller's own."""


def bare(environment: Iterable[str]) -> list[str]:
    """Return the words before a command that keep variables by these names from it (env(1)).

    A job's secrets are in the environment of who starts it, and a background process goes on for
    hours: none of them is for it. Names alone are on the command line, which others can read.
    """
    return ["env", *(f"--unset={name}" for name in environment if not _KEPT.fullmatch(name))]


def detach(log: pathlib.Path, work: Callable[[Callable[[], None]], None]) -> None:
    """Have `work` done by a process of its own, and return once that has called what it is given.

    What it says goes to `log`. Raises VmctlError where it ended before, with its words.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _leave(log, work, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    if not said.startswith(_BEGUN):
        raise errors.VmctlError(
            said.decode("utf-8", "replace").strip() or "The background process ended at once.",
            hint=f"What it wrote: {log}",
        )


def _leave(log: pathlib.Path, work: Callable[[Callable[[], None]], None], told: int) -> NoReturn:
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    status = 1
    try:
        os.chdir("/")
        _redirect(log)

        teller = io.FileIO(told, "wb")

        def begun() -> None:
            teller.write(_BEGUN)
            teller.close()

        try:
            work(begun)
            status = 0
        except errors.VmctlError as problem:
            _tell(teller, f"{problem.message} {problem.hint}".strip())
        except BaseException as problem:  # noqa: BLE001  (the last word of a process)
            _tell(teller, f"{type(problem).__name__}: {problem}")
    finally:
        os._exit(status)


def _redirect(log: pathlib.Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(log, flags, files.PRIVATE)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for source, target in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(descriptor)


def _tell(teller: io.FileIO, text: str) -> None:
    """Say why the process ends: to whoever waits for its beginning, and to the log."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
    if not teller.closed:
        with contextlib.suppress(OSError):
            teller.write(text.encode())
