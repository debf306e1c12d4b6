"""Commands in a guest over ssh: their streams, their exact status, and a sure end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import select
import shlex
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.guest import session as sessions
from vmctl.guest import shell, ssh
from vmctl.guest.session import NotBegunError, Session, Sink
from vmctl.guest.shell import Request
from vmctl.guest.ssh import Access

COMMAND_TIMEOUT = 124
"""Status for a command that was ended by its timeout, as timeout(1) has it."""

_CHUNK = 1 << 16
_SILENCE_SECONDS = 1.0
"""How long streams stay open after the command, for children that it left behind."""

_END_SECONDS = 10.0
_STALE_SECONDS = 20.0
"""How long a command may take to begin on a connection that may lead nowhere any more."""

_LONGEST_COMMAND = 8000
"""Bytes: dropbear takes command lines of at most 9000."""

_TEMPORARY = re.compile(r"/[A-Za-z0-9_./-]+")

Result = TypeVar("Result")


class CommandTimeoutError(errors.WaitTimeoutError):
    """The command did not end in time and was ended."""

    exit_code = COMMAND_TIMEOUT


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """What a command reads and who takes what it writes.

    `stdin` is a descriptor, None for no input. The sinks are called from threads of their own, one
    for each stream.
    """

    stdin: int | None
    stdout: Sink
    stderr: Sink


def run(
    access: Access,
    request: Request,
    streams: Streams,
    *,
    timeout: Deadline | None = None,
    terminal: bool = False,
) -> int:
    """Run a command in a guest and return its status: 128 + n where signal n ended it.

    Raises CommandTimeoutError at `timeout`, after the command and its children were ended, and what
    `ssh.connect` and `Session.ended` raise. An interruption ends the command as well.
    """
    return connected(
        access,
        lambda within: _run(access, request, streams, timeout, terminal, within),
        timeout,
    )


def run_shared(
    access: Access,
    request: Request,
    streams: Streams,
    *,
    timeout: Deadline | None = None,
    terminal: bool = False,
) -> int:
    """Do what `run` does on a connection that is there.

    Raises NotBegunError where it leads nowhere any more, and ends it then.
    """
    try:
        return _run(access, request, streams, timeout, terminal, _STALE_SECONDS)
    except NotBegunError:
        ssh.disconnect(access)
        raise


def connected(
    access: Access, attempt: Callable[[float], Result], timeout: Deadline | None = None
) -> Result:
    """Log in and return what `attempt` does; it is told how many seconds a command has to begin.

    It is tried again where it raised NotBegunError on a connection that was there already: a guest
    that was started anew under its machine leaves such ones, which may hang for minutes.
    """
    patience = float(ssh.CONNECT_SECONDS * access.patience)
    limit = Deadline.after(patience)
    try:
        reused = ssh.connect(access, limit.within(timeout.remaining) if timeout else limit)
    except errors.WaitTimeoutError as problem:
        if timeout is None or not timeout.passed:
            raise
        raise CommandTimeoutError(
            f"{problem.message} The command was not begun.", hint=problem.hint
        ) from None
    try:
        return attempt(min(_STALE_SECONDS, patience) if reused else patience)
    except NotBegunError as problem:
        if not reused:
            raise ssh.failure(access, problem.said) from None
    ssh.disconnect(access)
    ssh.connect(access)
    try:
        return attempt(patience)
    except NotBegunError as problem:
        raise ssh.failure(access, problem.said) from None


def _run(
    access: Access,
    request: Request,
    streams: Streams,
    timeout: Deadline | None,
    terminal: bool,
    begin_within: float,
) -> int:
    script = _script(access, request, terminal=terminal)
    with sessions.opened(
        access, script, streams.stderr, terminal=terminal, begin_within=begin_within
    ) as session:
        relay = _Relay(session, streams, terminal=terminal)
        try:
            relay.wait(timeout)
        except CommandTimeoutError as problem:
            _end_for(problem, access, session, request)
            relay.settle()
            raise
        except BaseException:
            _end(access, session, request)
            raise
        finally:
            relay.stop()
        return _named(request, session)


def _named(request: Request, session: Session) -> int:
    try:
        return session.ended()
    except errors.NotFoundError:
        raise errors.NotFoundError(
            f"The guest has no directory '{request.workdir}' to run the command in."
        ) from None


def _script(access: Access, request: Request, *, terminal: bool) -> Callable[[str], str]:
    """Return what makes the script of a request.

    Standard input is a person's terminal where there is one: variables, which may be secret, and
    long scripts then go ahead, into a private file that the script removes.
    """

    def plain(nonce: str) -> str:
        return shell.script(request, nonce, terminal=terminal)

    if not terminal or not (request.env or len(os.fsencode(plain(""))) > _LONGEST_COMMAND):
        return plain
    path = _put(access, plain)
    return lambda nonce: f"vmctl_nonce={nonce}; vmctl_file={path}; . {path}"


def _put(access: Access, script: Callable[[str], str]) -> str:
    """Write a script into a temporary file of the guest, and return its path."""
    store = 'umask 077; f=$(mktemp) && cat > "$f" && echo "$f"'
    limit = Deadline.after(ssh.CONNECT_SECONDS * access.patience)
    argv = ssh.command(access, [store], shared=True)
    text = 'rm -f "$vmctl_file"; ' + script("$vmctl_nonce")
    done = process.run(argv, limit, stdin=os.fsencode(text) + b"\n", check=False)
    lines = done.text.split()
    if done.status != 0 or not lines or not _TEMPORARY.fullmatch(lines[-1]):
        raise errors.GuestError(
            f"Machine '{access.name}' has no room for a temporary file.", details=done.complaint
        )
    return lines[-1]


class _Relay:
    """Moves bytes between a command and the streams until it has ended."""

    def __init__(self, session: Session, streams: Streams, *, terminal: bool) -> None:
        self._session = session
        self._streams = streams
        self._writing = False
        self._problem: BaseException | None = None
        self._wake_reader, self._wake_writer = os.pipe()
        self._output = threading.Thread(target=self._pump_output, daemon=True)
        self._output.start()
        self._input: threading.Thread | None = None
        self._takes_input = not terminal

    def wait(self, timeout: Deadline | None) -> None:
        """Return when the command has ended and nothing more comes of it.

        Raises CommandTimeoutError, and what a sink raised.
        """
        poll = 0.001
        while self._output.is_alive() or not self._session.silent:
            self._check()
            if self._session.runs and self._takes_input:
                self._begin_input()
            if self._session.main.status is not None and self._quiet():
                return
            if timeout is not None and timeout.passed:
                raise CommandTimeoutError(f"The command did not end within {timeout.seconds:g} s.")
            self._output.join(poll) if self._output.is_alive() else time.sleep(poll)
            poll = min(poll * 1.5, 0.05)
        self._check()

    def _check(self) -> None:
        problem = self._problem or self._session.problem
        if problem is not None:
            raise problem

    def _quiet(self) -> bool:
        idle = time.monotonic() - self._session.heard
        return not self._writing and idle > _SILENCE_SECONDS

    def _begin_input(self) -> None:
        """Let the input flow: not before the command runs, lest an earlier try ate of it."""
        self._takes_input = False
        if self._streams.stdin is None:
            self._session.close_input()
            return
        self._input = threading.Thread(
            target=self._pump_input, args=(self._streams.stdin,), daemon=True
        )
        self._input.start()

    def _pump_input(self, source: int) -> None:
        poll = select.poll()
        poll.register(source, select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        with contextlib.suppress(OSError, ValueError):
            while True:
                if any(descriptor == self._wake_reader for descriptor, _ in poll.poll()):
                    return
                data = os.read(source, _CHUNK)
                if not data:
                    break
                self._session.send(data)
        self._session.close_input()

    def _pump_output(self) -> None:
        try:
            for piece in self._session.pieces():
                self._session.heard = time.monotonic()
                self._writing = True
                self._streams.stdout(piece)
                self._writing = False
                self._session.heard = time.monotonic()
        except BaseException as problem:  # noqa: BLE001  (raised again by `wait`)
            self._problem = problem

    def settle(self) -> None:
        """Let what was written before the end arrive."""
        self._output.join(_SILENCE_SECONDS)

    def stop(self) -> None:
        """End the input's thread."""
        os.close(self._wake_writer)
        if self._input is not None:
            self._input.join(_SILENCE_SECONDS)
        if self._input is None or not self._input.is_alive():
            os.close(self._wake_reader)


def _end_for(
    problem: CommandTimeoutError, access: Access, session: Session, request: Request
) -> None:
    """End a command whose time is over, and say in `problem` what became of it."""
    if not session.main.begun:
        problem.message += " It had not begun yet."
    elif _end(access, session, request):
        problem.message += " It was ended, with what it had started."
    else:
        problem.message += " It could not be ended, because the guest does not answer."


def _end(access: Access, session: Session, request: Request) -> bool:
    """End a command in the guest with its children, through another session."""
    group = session.main.group
    if group is None or session.main.status is not None:
        return True
    text = shell.end(group, of_others=bool(request.user))
    argv = ssh.command(access, [f"exec sh -c {shlex.quote(text)}"], shared=True)
    try:
        done = process.run(argv, Deadline.after(_END_SECONDS * access.patience), check=False)
    except errors.VmctlError:
        return False
    return done.status == 0
