"""Whether an ssh server greets: on ports of the loopback interface that answer as guests do."""

from __future__ import annotations

import pathlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import signs
from vmctl.guest.ssh import Access

PATIENCE = 20.0


class Server:
    """A port of the loopback interface whose every connection is answered in the same way."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections = 0
        self._answer = answer
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self._held.append(peer)
            self._answer(peer)

    def close(self) -> None:
        # Closing alone does not wake who waits in accept, who would then take one connection more.
        self.listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.listener.close()
        for peer in self._held:
            peer.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[socket.socket], None]], Server]]:
    servers: list[Server] = []

    def make(answer: Callable[[socket.socket], None]) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def heard(greeting: signs.Greeting, port: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            if greeting.heard("127.0.0.1", port):
                return True
            time.sleep(0.02)
        return False
    finally:
        greeting.close()


def test_a_greeting_is_heard_at_once(serve) -> None:  # type: ignore[no-untyped-def]
    server = serve(lambda peer: peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"))
    begun = time.monotonic()
    assert heard(signs.Greeting(), server.port, PATIENCE)
    assert time.monotonic() - begun < 2


def test_a_port_that_takes_connections_and_says_nothing_is_left_in_peace(serve) -> None:  # type: ignore[no-untyped-def]
    # As QEMU's user network does until the guest has an address.
    server = serve(lambda peer: None)
    assert not heard(signs.Greeting(), server.port, 1.5)
    assert server.connections == 1


def test_a_refusal_makes_it_look_more_often(serve) -> None:  # type: ignore[no-untyped-def]
    server = serve(lambda peer: peer.close())
    assert not heard(signs.Greeting(), server.port, 1.5)
    assert 3 < server.connections <= 16


def test_another_protocol_is_no_greeting(serve) -> None:  # type: ignore[no-untyped-def]
    server = serve(lambda peer: peer.sendall(b"220 mail\r\n"))
    assert not heard(signs.Greeting(), server.port, 0.5)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert not heard(signs.Greeting(), port, 0.5)


def access(port: int) -> Access:
    return Access(
        name="web",
        host="127.0.0.1",
        port=port,
        user="dev",
        key=pathlib.Path("/nowhere/id_ed25519"),
        known_hosts=pathlib.Path("/nowhere/known_hosts"),
        alias="vmctl-web",
    )


def test_an_address_that_comes_late_is_waited_for(serve) -> None:  # type: ignore[no-untyped-def]
    server = serve(lambda peer: peer.sendall(b"SSH-2.0-x\r\n"))
    answers: list[Access | None] = [None, None, access(server.port)]
    way = signs.Ssh(lambda: answers.pop(0))
    end = time.monotonic() + PATIENCE
    assert not way.answers()
    assert "no address" in way.last
    while not way.answers() and time.monotonic() < end:
        time.sleep(0.02)
    assert way.greeted


def test_a_login_that_is_refused_is_tried_again_and_told(serve, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    server = serve(lambda peer: peer.sendall(b"SSH-2.0-x\r\n"))
    refusals = [errors.GuestError("not yet"), errors.GuestError("not yet either")]

    def connect(_access: Access, _deadline: Deadline) -> bool:
        if refusals:
            raise refusals.pop(0)
        return False

    monkeypatch.setattr(signs.ssh, "connect", connect)
    monkeypatch.setattr(signs.process, "run", lambda *_words, **_more: None)
    way = signs.Ssh(lambda: access(server.port))
    deadline = Deadline.after(PATIENCE)
    while not way.seen(deadline):
        assert not deadline.passed
        time.sleep(0.02)
    assert way.refusals == 2
    assert way.last == "not yet either"
