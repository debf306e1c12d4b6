"""Commands in a guest through its agent: short ones, without a terminal; no network is needed.

The agent can keep a command's output, but not much of it gets through libvirt. So the streams are
files in a private directory of the guest, which are read as they grow.
"""

from __future__ import annotations

import contextlib
import os
import select

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import shell
from vmctl.guest.remote import CommandTimeoutError, Streams
from vmctl.guest.session import Sink
from vmctl.guest.shell import Request
from vmctl.hypervisor import agent
from vmctl.hypervisor.connection import Connection

LONGEST_INPUT = 16 << 20
"""Bytes of standard input: they are sent ahead, in pieces, which takes a while."""

_CALL_SECONDS = 30.0
_END_SECONDS = 10.0
_FIRST_POLL = 0.01
_LAST_POLL = 0.25
_LEADER = (
    'if command -v setsid > /dev/null; then exec setsid sh "$0/run"; else exec sh "$0/run"; fi'
)


def run(
    connection: Connection,
    name: str,
    request: Request,
    streams: Streams,
    *,
    timeout: Deadline | None = None,
) -> int:
    """Run a command in a guest and return its status: 128 + n where signal n ended it.

    Input is sent ahead. Raises CommandTimeoutError after the command was ended, UsageError for
    more input than the agent takes, and what `hypervisor.agent.ask` raises.
    """
    stdin = _read_all(streams.stdin, timeout)
    place = _Place(connection, name)
    place.make()
    try:
        place.put("run", os.fsencode(place.script(request, stdin=bool(stdin))))
        if stdin:
            place.put("in", stdin)
        return place.follow(streams, timeout)
    finally:
        place.remove()


def _read_all(source: int | None, timeout: Deadline | None) -> bytes:
    """Read the standard input to its end, but not that of a person."""
    if source is None or os.isatty(source):
        return b""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    found = b""
    while True:
        wait = None if timeout is None else timeout.remaining * 1000
        if not poll.poll(wait):
            raise CommandTimeoutError("The standard input did not end in time.")
        data = os.read(source, 1 << 16)
        if not data:
            return found
        found += data
        if len(found) > LONGEST_INPUT:
            raise errors.UsageError(
                f"The guest agent takes at most {LONGEST_INPUT >> 20} MiB of input.",
                hint="Over ssh there is no limit: leave --agent out. Or give it no input: -n",
            )


class _Place:
    """A private directory in the guest, and the command that runs there."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._directory = f"/tmp/.vmctl-{os.urandom(8).hex()}"  # noqa: S108  (the guest's)

    def script(self, request: Request, *, stdin: bool) -> str:
        """Return the script of a request for this place."""
        return shell.script_with_files(request, self._directory, stdin=stdin)

    def make(self) -> None:
        """Make the directory and the files for what the command writes."""
        text = 'umask 077; mkdir "$0" && : > "$0/out" && : > "$0/err"'
        number = self._start(text)
        deadline = Deadline.after(_CALL_SECONDS)
        if self._wait(number, deadline) != 0:
            raise errors.GuestError(
                f"Machine '{self._name}' has no room for temporary files in its /tmp.",
                hint=f"Look inside: vmctl console {self._name}",
            )

    def remove(self) -> None:
        """Remove the directory; an agent that has gone does not hinder us."""
        with contextlib.suppress(errors.VmctlError):
            self._start('rm -rf "$0"')

    def put(self, file: str, data: bytes) -> None:
        """Write a file of the directory."""
        target = self._open(file, "w")
        target.write(data, Deadline.after(_CALL_SECONDS * (1 + len(data) / agent.PIECE)))
        target.close(Deadline.after(_CALL_SECONDS))

    def follow(self, streams: Streams, timeout: Deadline | None) -> int:
        """Run the command, pass on what it writes, and return its status."""
        sinks = ((self._open("out", "r"), streams.stdout), (self._open("err", "r"), streams.stderr))
        number = self._start(_LEADER)
        poll = _FIRST_POLL
        try:
            while True:
                # Asked ahead of the reading: what was written before the end is read after it.
                status = self._status(number)
                moved = [_drain(file, sink) for file, sink in sinks]
                if status is not None:
                    return status
                if timeout is not None and timeout.passed:
                    raise CommandTimeoutError(
                        f"The command did not end within {timeout.seconds:g} s. It was ended, "
                        "with what it had started."
                    )
                poll = _FIRST_POLL if any(moved) else min(poll * 1.5, _LAST_POLL)
                (timeout or Deadline.after(_LAST_POLL)).pause(poll)
        except BaseException:
            self._end(number)
            with contextlib.suppress(errors.VmctlError):
                for file, sink in sinks:
                    _drain(file, sink)
            raise
        finally:
            with contextlib.suppress(errors.VmctlError):
                for file, _ in sinks:
                    file.close(Deadline.after(_CALL_SECONDS))

    def _end(self, number: int) -> None:
        with contextlib.suppress(errors.VmctlError):
            self._wait(self._start(shell.end(number)), Deadline.after(_END_SECONDS))

    def _start(self, text: str) -> int:
        argv = ("/bin/sh", "-c", text, self._directory)
        return agent.start(self._connection, self._name, argv, Deadline.after(_CALL_SECONDS))

    def _status(self, number: int) -> int | None:
        limit = Deadline.after(_CALL_SECONDS)
        return agent.status(self._connection, self._name, number, limit)

    def _wait(self, number: int, deadline: Deadline) -> int | None:
        while not deadline.passed:
            status = self._status(number)
            if status is not None:
                return status
            deadline.pause(_FIRST_POLL)
        return None

    def _open(self, file: str, mode: str) -> agent.File:
        path = f"{self._directory}/{file}"
        limit = Deadline.after(_CALL_SECONDS)
        return agent.File(self._connection, self._name, path, mode, limit)


def _drain(file: agent.File, sink: Sink) -> bool:
    """Pass on what a file has got; tells whether there was anything."""
    moved = False
    while True:
        data = file.read(Deadline.after(_CALL_SECONDS))
        if not data:
            return moved
        moved = True
        sink(data)
