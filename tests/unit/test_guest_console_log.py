"""Following a console's log: over rotation and truncation, from a place, from the last lines."""

from __future__ import annotations

import pathlib

import pytest

from vmctl.guest.console_log import Follower


@pytest.fixture
def log(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "console.log"
    path.write_bytes(b"one\ntwo\nthree\n")
    return path


def test_beginning(log: pathlib.Path) -> None:
    assert Follower(log).begin() == b"one\ntwo\nthree\n"
    assert Follower(log).begin(lines=2) == b"two\nthree\n"
    assert Follower(log).begin(lines=0) == b""
    assert Follower(log).begin(lines=99) == b"one\ntwo\nthree\n"
    assert Follower(log).begin(since=4) == b"two\nthree\n"
    assert Follower(log).begin(since=4, lines=1) == b"three\n"
    assert Follower(log).begin(since=999) == b"one\ntwo\nthree\n"
    assert Follower(log.with_name("none")).begin() == b""


def test_nothing_is_lost_where_the_log_is_rotated(log: pathlib.Path) -> None:
    follower = Follower(log)
    follower.begin(lines=0)
    with log.open("ab") as stream:
        stream.write(b"last words\n")
    log.rename(log.with_name("console.log.0"))
    log.write_bytes(b"fresh\n")
    assert follower.read() == b"last words\nfresh\n"
    assert follower.read() == b""


def test_a_log_that_is_rotated_away_and_comes_back(log: pathlib.Path) -> None:
    follower = Follower(log)
    follower.begin()
    log.rename(log.with_name("console.log.1"))
    assert follower.read() == b""
    log.write_bytes(b"fresh\n")
    assert follower.read() == b"fresh\n"


def test_a_log_that_is_truncated(log: pathlib.Path) -> None:
    follower = Follower(log)
    follower.begin()
    log.write_bytes(b"new\n")
    assert follower.read() == b"new\n"
