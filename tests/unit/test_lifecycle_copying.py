"""Which side of a copy is a machine."""

from __future__ import annotations

import pytest

from vmctl import errors
from vmctl.lifecycle import copying
from vmctl.lifecycle.copying import Place, Request


@pytest.mark.parametrize(
    ("word", "machine", "path"),
    [
        ("web:/etc/hosts", "web", "/etc/hosts"),
        ("web:", "web", ""),
        ("web:a:b", "web", "a:b"),
        ("./a:b", "", "./a:b"),
        ("/tmp/a:b", "", "/tmp/a:b"),
        ("plain", "", "plain"),
        (":x", "", ":x"),
    ],
)
def test_places(word: str, machine: str, path: str) -> None:
    assert Place.read(word) == Place(machine, path)


@pytest.mark.parametrize("words", [("a", "b"), ("m:a", "m:b"), ("m:a", "n:b"), ("m:a", "b", "c")])
def test_one_side_is_a_machine(words: tuple[str, ...]) -> None:
    *sources, target = (Place.read(word) for word in words)
    with pytest.raises(errors.UsageError, match=r"side of the copy|one machine"):
        copying._machine(Request(sources=tuple(sources), target=target))


def test_either_side() -> None:
    into = Request(sources=(Place("", "a"), Place("", "b")), target=Place("m", "x"))
    assert copying._machine(into) == "m"
    out = Request(sources=(Place("m", "a"), Place("m", "b")), target=Place("", "x"))
    assert copying._machine(out) == "m"
