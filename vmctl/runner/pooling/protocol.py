"""How a pool's supervisor is talked to: one JSON object a line, over a socket of the owner's own.

A question is `{"ask": …}`, an answer has `"ok"`. A connection that has claimed a slot keeps it
until it is closed, whoever closes it: the kernel does when a process dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import Any, Self

from vmctl import errors, interruption
from vmctl.deadline import Deadline
from vmctl.runner.pooling import refusals

LONGEST = 1 << 20
"""Bytes of a line; an answer lists all slots."""

_LOOK_SECONDS = 0.2
_KINDS: dict[str, type[errors.VmctlError]] = {
    "usage": errors.UsageError,
    "conflict": errors.ConflictError,
    "host": errors.HostError,
    "timeout": errors.WaitTimeoutError,
    "refused": errors.RefusedError,
    "guest": errors.GuestError,
}


def encode(data: dict[str, Any]) -> bytes:
    """Return a message as it goes over the socket."""
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Return what a line says; raises ValueError for anything but a JSON object."""
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError("not an object")
    return data


def refusal(problem: errors.VmctlError) -> dict[str, Any]:
    """Return the answer that tells of an error."""
    # A spec's error is one of usage as well.
    kind = next((name for name, each in _KINDS.items() if isinstance(problem, each)), "")
    return {
        "ok": False,
        "kind": kind,
        "error": refusals.words(problem),
        "hint": problem.hint,
        "details": problem.details,
    }


def raised(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer; raises the error that it tells of."""
    if answer.get("ok"):
        return answer
    kind = _KINDS.get(str(answer.get("kind")), errors.VmctlError)
    raise kind(
        str(answer.get("error") or "The supervisor of the pool did not say what is wrong."),
        hint=str(answer.get("hint", "")),
        details=str(answer.get("details", "")),
    )


class Lines:
    """Puts lines together from what comes in pieces."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that are whole now; raises ValueError for one that is too long."""
        *whole, self._held = (self._held + data).split(b"\n")
        if len(self._held) > LONGEST:
            raise ValueError("too long a line")
        yield from whole


@contextlib.contextmanager
def short(path: pathlib.Path) -> Iterator[str]:
    """Give a path to a socket that is short enough (sun_path holds 108 bytes), for the block."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class Call:
    """A connection to a supervisor; closed at the end of the block."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._lines = Lines()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; a slot that was claimed over it is given back."""
        self._peer.close()

    def ask(self, deadline: Deadline, **question: Any) -> dict[str, Any]:
        """Ask and return the answer; raises the error that it tells of, WaitTimeoutError for none.

        Raises ConflictError where the supervisor ended meanwhile.
        """
        gone = errors.ConflictError("The supervisor of the pool ended before it answered.")
        try:
            self._peer.sendall(encode(question))
        except OSError:
            raise gone from None
        while True:
            interruption.stop_if_unwanted()
            self._peer.settimeout(max(0.001, min(_LOOK_SECONDS, deadline.remaining)))
            try:
                data = self._peer.recv(1 << 16)
            except TimeoutError:
                if deadline.passed:
                    raise errors.WaitTimeoutError(
                        f"The pool's supervisor did not answer within {deadline.seconds:g} s."
                    ) from None
                continue
            except OSError:
                raise gone from None
            if not data:
                raise gone
            for line in self._lines.feed(data):
                return raised(decode(line))


def call(path: pathlib.Path) -> Call | None:
    """Connect to a supervisor; None where there is none."""
    peer = socket.socket(socket.AF_UNIX)
    try:
        with short(path) as address:
            peer.connect(address)
    except OSError:
        peer.close()
        return None
    return Call(peer)
