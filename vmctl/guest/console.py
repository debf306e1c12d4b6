"""A person at a guest's serial console."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import time
import tty
from collections.abc import Iterator

from vmctl.hypervisor.console import Stream

ESCAPE = b"\x1d"
"""Ctrl-], as in telnet and virsh."""

_POLL = 0.02
_SILENCE_SECONDS = 1.0
"""How long the guest may be silent after the end of a piped input, until that was its answer."""


def attach(stream: Stream, stdin: int, stdout: int) -> None:
    """Connect file descriptors with a console until Ctrl-], the end of the input or of the guest.

    Raw: what the guest writes reaches the terminal as it is.
    """
    pending = b""
    reading = True
    heard = time.monotonic()
    with _raw(stdin):
        while True:
            received = stream.receive()
            if received is None:
                return
            if received:
                heard = time.monotonic()
                _write(stdout, received)
            if pending:
                pending = stream.send(pending)
            idle = 0.0 if received or pending else _POLL
            if not reading:
                if not pending and time.monotonic() - heard > _SILENCE_SECONDS:
                    return
                time.sleep(idle)
                continue
            if select.select([stdin], [], [], idle)[0]:
                typed = os.read(stdin, 1024)
                if ESCAPE in typed:
                    return
                reading = bool(typed)
                heard = time.monotonic()
                pending += typed


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Put a terminal into raw mode for the block; anything else stays as it is."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    # Not TCSAFLUSH, the default: what was typed already belongs to the guest.
    tty.setraw(descriptor, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
