from __future__ import annotations

import threading

from vmctl.ui.running import Prefixed


def test_lines_are_whole_and_labelled() -> None:
    written: list[bytes] = []
    sink = Prefixed(written.append, "A=ü", threading.Lock())
    for piece in (b"on", b"e\ntwo\nth", b"ree"):
        sink(piece)
    sink.finish()
    sink.finish()
    assert b"".join(written) == "[A=ü] one\n[A=ü] two\n[A=ü] three\n".encode()


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    written: list[bytes] = []
    sink = Prefixed(written.append, "A=1", threading.Lock())
    for _ in range(20):
        sink(b"." * 10_000)
    assert len(written) >= 2
