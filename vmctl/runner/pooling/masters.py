"""The ssh connections to guests that wait for a job: held open, and their end noticed at once."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable

from vmctl.guest import ssh
from vmctl.runner.pooling.ready import Ready

_CHUNK = 1 << 16


class Masters:
    """Holds on to ssh's masters, by the number of a slot; `gone` is told of one that ended.

    A master with a client neither idles out nor dies unseen: it ends with its guest.
    """

    def __init__(self, selector: selectors.BaseSelector, gone: Callable[[int], None]) -> None:
        self._selector = selector
        self._gone = gone
        self._held: dict[int, socket.socket] = {}

    def hold(self, number: int, ready: Ready) -> None:
        """Hold on to the connection of a slot that is ready."""
        self.let_go(number)
        path = ssh.socket_path(ready.access)
        if path is None:
            return
        master = socket.socket(socket.AF_UNIX)
        try:
            master.connect(os.fspath(path))
        except OSError:
            master.close()
            self._gone(number)
            return
        master.setblocking(False)
        self._held[number] = master
        self._selector.register(master, selectors.EVENT_READ, lambda: self._heard(number))

    def let_go(self, number: int) -> None:
        """Hold a connection no more; fine where it is not held."""
        master = self._held.pop(number, None)
        if master is not None:
            self._selector.unregister(master)
            master.close()

    def close(self) -> None:
        """Let go of all of them; they stay open for a while."""
        for number in list(self._held):
            self.let_go(number)

    def _heard(self, number: int) -> None:
        master = self._held.get(number)
        if master is None:
            return
        try:
            data = master.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        # Its greeting is the one thing that it says.
        if not data:
            self.let_go(number)
            self._gone(number)
