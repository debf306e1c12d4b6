"""The connections to a pool's supervisor, over a real socket and without threads."""

from __future__ import annotations

import pathlib
import selectors
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from vmctl import errors
from vmctl.runner.pooling import protocol
from vmctl.runner.pooling.clients import Clients


class Host:
    """Has clients, and notes what they ask and who went."""

    def __init__(self, path: pathlib.Path) -> None:
        self.asked: list[tuple[int, str]] = []
        self.gone: list[int] = []
        self.selector = selectors.DefaultSelector()
        self.clients = Clients(self.selector, self._asked, self.gone.append)
        self.clients.listen(path)

    def _asked(self, number: int, question: dict[str, Any]) -> None:
        self.asked.append((number, question["ask"]))
        if question["ask"] == "status":
            self.clients.answer(number, {"ok": True})
        elif question["ask"] == "tea":
            raise errors.UsageError("What is tea?")

    def turn(self) -> None:
        """Do all that there is to do."""
        while found := self.selector.select(0):
            for key, _ in found:
                key.data()


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "control.sock"


@pytest.fixture
def host(path: pathlib.Path) -> Iterator[Host]:
    found = Host(path)
    yield found
    found.clients.close()
    found.selector.close()


def connected(path: pathlib.Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    with protocol.short(path) as address:
        peer.connect(address)
    peer.settimeout(60)
    return peer


def test_who_has_gone_asks_nothing(host: Host, path: pathlib.Path) -> None:
    """Its first question cannot be answered; the second, in the same packet, is nobody's."""
    with connected(path) as peer:
        peer.sendall(protocol.encode({"ask": "status"}) + protocol.encode({"ask": "claim"}))
    host.turn()
    assert host.asked == [(1, "status")]
    assert host.gone == [1] and 1 not in host.clients and len(host.clients) == 0


def test_numbers_never_come_again(host: Host, path: pathlib.Path) -> None:
    for _ in range(2):
        with connected(path) as peer:
            peer.sendall(protocol.encode({"ask": "claim"}))
            host.turn()
        host.turn()
    assert host.asked == [(1, "claim"), (2, "claim")]
    assert host.gone == [1, 2]
    assert not host.clients.answer(1, {"ok": True})


def test_errors_are_answers(host: Host, path: pathlib.Path) -> None:
    with connected(path) as peer:
        peer.sendall(protocol.encode({"ask": "tea"}))
        host.turn()
        assert b"What is tea?" in peer.recv(1000)
        assert 1 in host.clients


@pytest.mark.parametrize("line", [b"[" * 200_000, b"{}", b"\xff", b"x" * (protocol.LONGEST + 1)])
def test_who_does_not_speak_our_language(host: Host, path: pathlib.Path, line: bytes) -> None:
    with connected(path) as peer:
        peer.setblocking(False)
        rest = memoryview(line + b"\n")
        while rest and not host.gone:
            rest = rest[peer.send(rest[: 1 << 15]) :]
            host.turn()
    assert host.gone == [1]


def test_answers_that_wait(host: Host, path: pathlib.Path) -> None:
    with connected(path) as peer:
        peer.sendall(protocol.encode({"ask": "drain"}))
        host.turn()
        host.clients.wait(1, "idle")
        assert host.clients.waiting("empty") == [] and host.clients.waiting("idle") == [1]
        assert host.clients.answer(1, {"ok": True})
        assert host.clients.waiting("idle") == []
        assert peer.recv(100) == b'{"ok":true}\n'
