"""Writes what a command in a guest writes, as it comes."""

from __future__ import annotations

import codecs
import os
from typing import TextIO

from vmctl.ui import escape, terminal


class Writer:
    """Takes bytes and writes them to a stream: as they are, or printable where a person looks on.

    `raw` leaves them as they are on a terminal too, for a command that has a terminal itself.
    `lines` ends lines as files do (consoles end them with a carriage return as well).
    """

    def __init__(self, stream: TextIO, *, raw: bool = False, lines: bool = False) -> None:
        self._descriptor = stream.fileno()
        self._escaping = terminal.is_tty(stream) and not raw
        self._lines = lines or self._escaping
        self._held = b""
        self.at_line_start = True
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def __call__(self, data: bytes) -> None:
        """Write all of `data`. Raises OSError where the stream takes no more."""
        if self._lines:
            data = (self._held + data).replace(b"\r\n", b"\n")
            # Perhaps the first half of the end of a line.
            self._held = data[-1:] if data.endswith(b"\r") else b""
            data = data[: len(data) - len(self._held)]
        if self._escaping:
            data = escape.printable(self._decoder.decode(data)).encode("utf-8", "replace")
        if data:
            self.at_line_start = data.endswith(b"\n")
        while data:
            data = data[os.write(self._descriptor, data) :]
