"""The connections to a pool's supervisor: what comes in over them, and the answers that go out."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import selectors
import socket
import sys
from collections.abc import Callable
from typing import Any

from vmctl import errors
from vmctl.runner.pooling import protocol

_BACKLOG = 128
_CHUNK = 1 << 16
_SENT_SECONDS = 5.0


@dataclasses.dataclass(slots=True)
class _Client:
    """A connection, and what its answer waits for."""

    peer: socket.socket
    lines: protocol.Lines = dataclasses.field(default_factory=protocol.Lines)
    awaits: str = ""


class Clients:
    """The connections by number; a number never comes again.

    `asked` is given each question; the VmctlError that it raises is the answer. `gone` is told of
    every connection that ended, whoever ended it.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        asked: Callable[[int, dict[str, Any]], None],
        gone: Callable[[int], None],
    ) -> None:
        self._selector = selector
        self._asked = asked
        self._gone = gone
        self._numbers = itertools.count(1)
        self._clients: dict[int, _Client] = {}
        self._listener: socket.socket | None = None
        self._path: pathlib.Path | None = None

    def __len__(self) -> int:
        return len(self._clients)

    def __contains__(self, number: int) -> bool:
        return number in self._clients

    def listen(self, path: pathlib.Path) -> None:
        """Let clients of the same account connect, and nobody else."""
        path.unlink(missing_ok=True)
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            with protocol.short(path) as address:
                self._listener.bind(address)
        finally:
            os.umask(before)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def stop_listening(self) -> None:
        """Let nobody else connect; fine where nobody could."""
        if self._listener is not None and self._path is not None:
            self._path.unlink(missing_ok=True)
            # A socket that was never bound whole is not registered.
            if self._listener.fileno() in self._selector.get_map():
                self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        """End all connections; nobody is told."""
        self.stop_listening()
        for client in self._clients.values():
            client.peer.close()

    def wait(self, number: int, awaits: str) -> None:
        """Note what the answer to a client waits for."""
        if number in self._clients:
            self._clients[number].awaits = awaits

    def waiting(self, *awaits: str) -> list[int]:
        """Return whose answers wait for one of these."""
        return [number for number, each in self._clients.items() if each.awaits in awaits]

    def answer(self, number: int, answer: dict[str, Any]) -> bool:
        """Send an answer; False where the client is gone, or goes by that."""
        client = self._clients.get(number)
        if client is None:
            return False
        client.awaits = ""
        try:
            client.peer.settimeout(_SENT_SECONDS)
            client.peer.sendall(protocol.encode(answer))
            client.peer.setblocking(False)
        except OSError:
            self.hang_up(number)
            return False
        return True

    def hang_up(self, number: int) -> None:
        """End a connection; fine where it has ended."""
        client = self._clients.pop(number, None)
        if client is not None:
            self._selector.unregister(client.peer)
            client.peer.close()
            self._gone(number)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        peer.setblocking(False)
        number = next(self._numbers)
        self._clients[number] = _Client(peer)
        self._selector.register(peer, selectors.EVENT_READ, lambda: self._heard(number))

    def _heard(self, number: int) -> None:
        client = self._clients.get(number)
        if client is None:
            # Hung up on since it was heard.
            return
        try:
            data = client.peer.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.hang_up(number)
            return
        try:
            for line in client.lines.feed(data):
                self._asked(number, protocol.decode(line))
                if number not in self._clients:
                    return
        except errors.VmctlError as problem:
            self.answer(number, protocol.refusal(problem))
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            # Nobody that speaks our language.
            self.hang_up(number)
        except Exception as problem:  # noqa: BLE001  (one client does not end a supervisor)
            sys.stderr.write(f"A client was hung up on: {type(problem).__name__}: {problem}\n")
            self.hang_up(number)
