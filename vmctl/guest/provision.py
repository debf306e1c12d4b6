"""One provision step in a guest: its output kept and shown, its end judged."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import script
from vmctl.guest.ssh import Access
from vmctl.machine.payload import Step
from vmctl.store import files

STEP_SECONDS = 1800.0
"""How long a step may take on real hardware unless the spec says otherwise."""

MOST_OUTPUT = 8 << 20
"""Bytes of a step's output that are kept; the machine's directory must not fill the disk."""

_TAIL_LINES = 15
_LONGEST_LINE = 2000
_CUT = f"\n… the rest is not kept: the limit is {MOST_OUTPUT >> 20} MiB.\n".encode()
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def digest(step: Step) -> str:
    """Return what tells a step from others: script, user and environment; not name or timeout."""
    text = json.dumps([step.script.hex(), step.user, step.env], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def run(
    access: Access,
    step: Step,
    log: pathlib.Path,
    seen: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> None:
    """Carry out a step; all that it prints goes to `log`, each line also to `seen`.

    Raises GuestError when it fails, WaitTimeoutError when it takes too long, both with the end of
    its output.
    """
    deadline = Deadline.after((step.timeout or STEP_SECONDS) * access.patience)
    with _kept(log) as output:
        heard = Output(output, seen)
        task = script.Script(content=step.script, user=step.user, env=step.env)
        try:
            status = script.run(access, task, deadline, heard.take, cancelled)
        except errors.WaitTimeoutError as problem:
            if not deadline.passed:
                raise
            raise errors.WaitTimeoutError(
                f"Provision step '{step.name}' of machine '{access.name}' did not end within "
                f"{deadline.seconds:g} s and was ended. Last seen: {heard.last!r}.",
                hint="Give it longer: timeout: 2h beside the step; then run vmctl up again.",
                details=heard.tail,
            ) from problem
        except script.LostError as problem:
            problem.hint += (
                ". A step that wants its guest restarted says so, and leaves it to vmctl: "
                "reboot: true beside it"
            )
            problem.details = problem.details or heard.tail
            raise
    if status != 0:
        raise errors.GuestError(
            f"Provision step '{step.name}' of machine '{access.name}' {_how(status)}.",
            hint=f"All that it printed is in '{log}'. Look around: vmctl ssh {access.name}; once "
            "the step is mended, vmctl up goes on with it.",
            details=heard.tail,
        )


def _how(status: int) -> str:
    if status > 128:
        return f"was killed by signal {status - 128}"
    return f"failed with status {status}"


@contextlib.contextmanager
def _kept(path: pathlib.Path) -> Iterator[Callable[[bytes], None]]:
    """Open a private file for what a step prints; the one before is kept as well."""
    with contextlib.suppress(FileNotFoundError):
        path.rename(path.with_name(f"{path.name}.1"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, files.PRIVATE)
    except OSError as problem:
        raise files.unusable(path, problem) from None
    room = MOST_OUTPUT

    def write(data: bytes) -> None:
        nonlocal room
        if room <= 0:
            return
        kept = data[:room]
        room -= len(kept)
        _write(descriptor, kept if room > 0 else kept + _CUT)

    try:
        os.fchmod(descriptor, files.PRIVATE)
        yield write
    except OSError as problem:
        raise files.unusable(path, problem) from None
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class Output:
    """What a step prints: passed on as bytes, and as the lines that people see."""

    def __init__(self, keep: Callable[[bytes], None], seen: Callable[[str], None]) -> None:
        self._keep = keep
        self._seen = seen
        self._rest = b""
        self._lines: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)

    @property
    def tail(self) -> str:
        """The last lines."""
        return "\n".join([*self._lines, *filter(None, [_plain(self._rest)])])

    @property
    def last(self) -> str:
        """The last line with something in it."""
        return next((line for line in reversed(self.tail.split("\n")) if line.strip()), "")

    def take(self, data: bytes) -> None:
        """Take in what came."""
        self._keep(data)
        # A progress bar goes back with \r and writes its line again.
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = self._rest[-_LONGEST_LINE:]
        self._lines.extend(_plain(line) for line in lines)
        told = next((line for line in reversed(self._lines) if line.strip()), "") if lines else ""
        if b"\r" in self._rest:
            told = _plain(self._rest)
        if told:
            self._seen(told)


def _plain(line: bytes) -> str:
    shown = line.rstrip(b"\r").rpartition(b"\r")[2][:_LONGEST_LINE]
    return _ANSI.sub("", shown.decode("utf-8", "replace"))


def first_to_run(wanted: Sequence[Step], done: Sequence[str], *, complete: bool) -> int:
    """Return the index of the first step to carry out; those before it are done.

    A step that was done does not run again because its text changed: `up` says so instead.
    """
    return len(wanted) if complete else min(len(done), len(wanted))


def changed(wanted: Sequence[Step], done: Sequence[str], *, complete: bool) -> list[Step]:
    """Return the steps that will not run although they are not what was carried out."""
    first = first_to_run(wanted, done, complete=complete)
    found = [step for step, was in zip(wanted, done, strict=False) if digest(step) != was]
    return [*found, *wanted[len(done) : first]]
