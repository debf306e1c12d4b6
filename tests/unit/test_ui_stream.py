"""What a guest's command writes, as a file and as a person get it."""

from __future__ import annotations

import os
import pty
import select
from collections.abc import Callable

import pytest

from vmctl.ui.stream import Writer


def through_terminal(write: Callable[[Writer], None], *, raw: bool = False) -> bytes:
    main, side = pty.openpty()
    with os.fdopen(side, "w") as stream:
        write(Writer(stream, raw=raw))
        got = b""
        # The kernel may hand it over in pieces.
        while select.select([main], [], [], 0.2)[0]:
            got += os.read(main, 4096)
    os.close(main)
    # The terminal's own line ends.
    return got.replace(b"\r\n", b"\n")


def pieces(*data: bytes) -> Callable[[Writer], None]:
    return lambda writer: [writer(each) for each in data] and None


def test_files_get_the_bytes() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        Writer(stream)(bytes(range(256)))
        assert os.read(reader, 4096) == bytes(range(256))
    os.close(reader)


def test_a_person_gets_no_control_characters() -> None:
    got = through_terminal(pieces(b"a\x1b[31mb\x07", b"\xc3", b"\xa9\xff\r", b"\nend\n"))
    assert got == "a\\x1b[31mb\\x07é\\xff\nend\n".encode()


def test_a_terminal_of_the_commands_own_gets_all() -> None:
    assert through_terminal(pieces(b"a\x1b[31mb"), raw=True) == b"a\x1b[31mb"


@pytest.mark.parametrize("cut", range(5))
def test_lines_end_as_those_of_files(cut: int) -> None:
    reader, writer = os.pipe()
    text = b"a\r\nb\r"
    with os.fdopen(writer, "w") as stream:
        lines = Writer(stream, lines=True)
        lines(text[:cut])
        lines(text[cut:])
        lines(b"c\r\n")
        assert os.read(reader, 4096) == b"a\nb\rc\n"
        assert lines.at_line_start
    os.close(reader)
