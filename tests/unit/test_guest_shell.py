"""Commands for a guest's shell, tried in this host's own; and the marks in a stream."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmctl import errors
from vmctl.guest import shell
from vmctl.guest.shell import Marks, Request

NONCE = "0123456789abcdef"
WORDS = (
    "plain",
    "",
    "two words",
    "'single'",
    '"double"',
    "$HOME `id` $(id) ${x}",
    "* ? [a-z] ~ {a,b}",
    "line\nbreak\n",
    "\n",
    "back\\slash \\n",
    "-n",
    "--",
    "!history !!",
    "# no comment",
    "; exit 3 & | > /dev/null",
    "tab\tand\x07bell\x1b[31m",
    "naïve ☃",
    os.fsdecode(b"\xff\xfe\x81\x82\x88"),
    "%s %n \\0",
)


def in_shell(request: Request, *, stdin: bytes = b"") -> tuple[bytes, bytes, Marks, Marks]:
    """Run a request with the bootstrap of a real session, and take the marks out."""
    line = os.fsencode(shell.script(request, NONCE)) + b"\n"
    done = subprocess.run(
        ["sh", "-c", shell.BOOTSTRAP],
        input=line + shell.GO + stdin,
        capture_output=True,
        check=False,
        timeout=60,
        start_new_session=True,
    )
    out, err = Marks(NONCE), Marks(NONCE)
    return out.feed(done.stdout) + out.finish(), err.feed(done.stderr) + err.finish(), out, err


@pytest.mark.allow_process
def test_words_arrive_as_they_are() -> None:
    out, err, marks, errs = in_shell(Request(argv=("printf", "%s\\0", *WORDS)))
    assert out.split(b"\0")[:-1] == [os.fsencode(each) for each in WORDS]
    assert err == b""
    assert marks.begun
    assert errs.status == 0


@pytest.mark.allow_process
@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 255", 255), ("kill -9 $$", 137), ("kill -INT $$", 130), ("kill 0", 143)],
)
def test_statuses(script: str, status: int) -> None:
    _, err, _, errs = in_shell(Request(argv=("sh", "-c", script)))
    assert errs.status == status
    assert err == b""


@pytest.mark.allow_process
@pytest.mark.parametrize("word", ["exit", "if", "no-such-program", "A=b"])
def test_words_are_programs_and_nothing_else(word: str) -> None:
    _, err, _, errs = in_shell(Request(argv=(word, "3")))
    assert errs.status == 127
    assert b"not found" in err


@pytest.mark.allow_process
def test_input_and_variables_and_place() -> None:
    env = {"A": "two words\nand 'more' $HOME", "n": "5", "c": "6", "vmctl": "7"}
    request = Request(argv=("sh", "-c", 'cat; pwd; printf %s "$A$n$c$vmctl"'), env=env, workdir="/")
    out, _, _, _ = in_shell(request, stdin=b"input\nof two lines\n")
    assert out == b"input\nof two lines\n/\n" + env["A"].encode() + b"567"


@pytest.mark.allow_process
def test_a_directory_that_is_not_there() -> None:
    _, _, marks, errs = in_shell(Request(argv=("true",), workdir="/no/such/place"))
    assert not marks.begun
    assert errs.failed == "workdir"


@pytest.mark.allow_process
def test_nothing_runs_without_the_word() -> None:
    line = os.fsencode(shell.script(Request(argv=("echo", "ran")), NONCE)) + b"\n"
    done = subprocess.run(
        ["sh", "-c", shell.BOOTSTRAP], input=line, capture_output=True, check=False, timeout=60
    )
    assert b"begin" in done.stdout
    assert b"ran" not in done.stdout


def test_names_of_variables() -> None:
    for name in ("", "1A", "A-B", "A B", "É", "A\n"):
        with pytest.raises(errors.UsageError, match="environment variable"):
            shell.exports({name: "x"})


def test_a_script_is_one_line() -> None:
    request = Request(argv=WORDS, env={"A": "\n"}, workdir="/a\nb", user="us\ner")
    assert "\n" not in shell.script(request, NONCE)
    assert "\n" not in shell.BOOTSTRAP


@given(
    before=st.binary(max_size=40),
    data=st.binary(max_size=300),
    cuts=st.lists(st.integers(0, 500), max_size=12),
)
def test_marks_come_out_of_any_pieces(before: bytes, data: bytes, cuts: list[int]) -> None:
    mark = b"\x1evmctl-" + NONCE.encode()
    stream = before + mark + b" begin 42\x1e" + data + mark + b" end 255\x1e" + data
    marks, got, last = Marks(NONCE), b"", 0
    for cut in [*sorted(cuts), len(stream)]:
        got += marks.feed(stream[last:cut])
        last = max(last, cut)
    got += marks.finish()
    assert got == data + data
    assert marks.noise == before
    assert (marks.group, marks.status) == (42, 255)


def test_marks_of_others_are_data() -> None:
    stream = b"\x1evmctl-ffff begin 1\x1e"
    marks = Marks(NONCE)
    marks.feed(b"\x1evmctl-" + NONCE.encode() + b" begin 1\x1e")
    assert marks.feed(stream) + marks.finish() == stream
    begun = b"\x1evmctl-" + NONCE.encode() + b" " + b"x" * 100
    assert marks.feed(begun) + marks.finish() == begun
