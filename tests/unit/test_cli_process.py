"""The command line as a process: what is imported, pipes, full disks, signals, a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

pytestmark = pytest.mark.allow_process

HEAVY = {"pydantic", "libvirt", "rich", "yaml"}
SHOW_CURSOR = b"\x1b[?25h"
HIDE_CURSOR = b"\x1b[?25l"
PATIENCE = 30.0

PROGRAM = """
import sys, time
import click
from vmctl import cli
from vmctl.cli import context, overview
from vmctl.lifecycle.events import Note, Phase, Step
from vmctl.ui import ask, progress, table, terminal

@click.command()
@click.argument("count", type=int)
@context.options
def machines(context, count):
    row = ("machine" * 4, "tcg-virtio", "running", "512 MiB", "x" * 60)
    table.show(("name", "mode", "state", "memory", "note"), [row] * count, state="state")

@click.command()
@click.argument("seconds", type=float)
@context.options
def work(context, seconds):
    def events():
        for name in ("web", "db"):
            yield Step(machine=name, step="start", phase=Phase.STARTED)
        yield Note(machine="web", level="warning", text="a long story " * 12)
        yield Step(machine="web", step="start", phase=Phase.PROGRESS, note="last line " * 20)
        time.sleep(seconds)
        yield Step(machine="web", step="start", phase=Phase.DONE, seconds=seconds)
        yield Step(machine="db", step="start", phase=Phase.DONE, seconds=seconds)
    progress.follow(events(), quiet=context.quiet)
    terminal.put("result")

@click.command()
@context.options
def flood(context):
    while True:
        click.echo("more " * 100)

@click.command()
@context.options
def modules(context):
    table.show(("name",), [("web",)])
    terminal.put(" ".join(sorted(sys.modules)))

overview.SECTIONS["Test"] = {
    name: (f"__main__:{name}", f"Test {name}.") for name in ("machines", "work", "flood", "modules")
}
cli.main()
"""


@pytest.fixture
def program(tmp_path: pathlib.Path) -> list[str]:
    """The command line with commands of the test's own."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return [sys.executable, str(path)]


def environment(**changes: str) -> dict[str, str]:
    """The environment without what would change how a terminal looks."""
    taken = ("NO_COLOR", "COLUMNS", "LINES", "PYTHONUNBUFFERED", "_VMCTL_COMPLETE")
    kept = {name: value for name, value in os.environ.items() if name not in taken}
    return kept | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | changes


def run(argv: list[str], **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(**changes),
    )


VMCTL = [sys.executable, "-m", "vmctl"]


def on_terminal(
    argv: list[str], *, interrupt_at: bytes = b"", number: int = signal.SIGINT, **changes: str
) -> tuple[int, bytes]:
    """Run a program on a terminal of 80 x 24; send it a signal once it has printed some bytes."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    child = subprocess.Popen(
        argv, stdin=slave, stdout=slave, stderr=slave, env=environment(**changes)
    )
    os.close(slave)
    seen = b""
    limit = time.monotonic() + PATIENCE
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while time.monotonic() < limit:
            if not select.select([master], [], [], 0.1)[0]:
                continue
            piece = os.read(master, 65536)
            if not piece:
                break
            seen += piece
            if interrupt_at and interrupt_at in seen:
                child.send_signal(number)
                interrupt_at = b""
    try:
        return child.wait(timeout=PATIENCE), seen
    finally:
        child.kill()
        os.close(master)


def widest(seen: bytes) -> int:
    """The longest line in columns, as far as it was drawn."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    return max(len(line) for line in re.split(r"[\r\n]", text))


@pytest.mark.parametrize("argument", ["--help", "--version", "-h", None])
def test_the_help_imports_nothing_heavy(argument: str | None) -> None:
    code = (
        f"import sys; sys.argv = ['vmctl', *{[argument] if argument else []}]\n"
        "from vmctl.cli import main\n"
        "try: main()\n"
        "finally: sys.stderr.write(' '.join(sys.modules))"
    )
    done = run([sys.executable, "-c", code])
    assert done.returncode == 0
    assert done.stdout
    loaded = set(done.stderr.split())
    assert "vmctl.cli" in loaded
    assert not loaded & (HEAVY | {"click", "dataclasses", "typing", "pathlib"})


def test_a_table_in_a_pipe_imports_nothing_heavy(program: list[str]) -> None:
    assert not set(run([*program, "modules"]).stdout.split()) & HEAVY


def test_a_pipe_gets_no_escape_codes_and_whole_lines(program: list[str]) -> None:
    done = run([*program, "machines", "3"])
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.count("x" * 60) == 3


def test_progress_in_a_pipe_is_plain_and_on_standard_error(program: list[str]) -> None:
    done = run([*program, "work", "0"])
    assert (done.returncode, done.stdout) == (0, "result\n")
    assert "\x1b" not in done.stderr
    assert done.stderr.splitlines()[-2:] == ["✓ web  start  0.0 s", "✓ db  start  0.0 s"]


def test_quiet_in_either_place(program: list[str]) -> None:
    for argv in (["-q", "work", "0"], ["work", "0", "-q"]):
        done = run([*program, *argv])
        assert done.stdout == "result\n"
        assert done.stderr.startswith("! web  a long story")
        assert len(done.stderr.splitlines()) == 1


def test_a_table_on_a_terminal_fits(program: list[str]) -> None:
    status, seen = on_terminal([*program, "machines", "4"])
    assert status == 0
    assert widest(seen) <= 80
    assert b"\x1b[32m" in seen


def test_progress_on_a_terminal_fits_and_gives_the_cursor_back(program: list[str]) -> None:
    status, seen = on_terminal([*program, "work", "0.5"])
    assert status == 0
    assert widest(seen) <= 80
    assert HIDE_CURSOR in seen
    assert seen.rfind(SHOW_CURSOR) > seen.rfind(HIDE_CURSOR)
    assert seen.endswith(b"result\r\n")


@pytest.mark.parametrize("command", [["machines", "2"], ["work", "0.1"], ["upp"]])
def test_no_color_on_a_terminal(program: list[str], command: list[str]) -> None:
    _status, seen = on_terminal([*program, *command], NO_COLOR="1")
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]", seen)


def test_a_dumb_terminal_gets_plain_lines(program: list[str]) -> None:
    status, seen = on_terminal([*program, "work", "0.1"], TERM="dumb")
    assert status == 0
    assert b"\x1b" not in seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_is_orderly(program: list[str], number: int) -> None:
    # Under nohup the child would inherit that SIGHUP is ignored, and vmctl respects that.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        _interrupted(program, number)
    finally:
        signal.signal(number, before)


def _interrupted(program: list[str], number: int) -> None:
    status, seen = on_terminal([*program, "work", "60"], interrupt_at=b"last line", number=number)
    assert status == 130
    assert seen.endswith(b"Interrupted.\r\n")
    assert b"Traceback" not in seen
    assert seen.rfind(SHOW_CURSOR) > seen.rfind(HIDE_CURSOR)


def test_a_reader_that_leaves_changes_nothing_for_results(program: list[str]) -> None:
    assert left_alone([*program, "machines", "2000"]) == (0, "")


def test_a_command_cut_short_by_its_reader_ends_silently(program: list[str]) -> None:
    assert left_alone([*program, "flood"]) == (1, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_that_nobody_reads(unbuffered: str) -> None:
    status, err = left_alone([*VMCTL, "--help"], PYTHONUNBUFFERED=unbuffered)
    assert (status in (0, 1), err) == (True, "")


def left_alone(argv: list[str], **changes: str) -> tuple[int, str]:
    """Run a program whose standard output is a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            argv,
            check=False,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            env=environment(**changes),
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["--help"], ["completion", "zsh"], ["machines", "1000"]])
def test_a_full_disk_is_an_error_with_a_reason(
    program: list[str], command: list[str], unbuffered: str
) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*program, *command],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            env=environment(PYTHONUNBUFFERED=unbuffered),
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: Output could not be written: No space left on device.",
        "hint: Free some space, or send the output elsewhere.",
    ]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(program: list[str], closed: str) -> None:
    command = f'"$@" machines 2 {closed}'
    done = run(["/bin/sh", "-c", command, "sh", *program])
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_narrow_encoding_does_no_harm(program: list[str]) -> None:
    done = run([*program, "work", "0"], PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "ok web  start" in done.stderr


@pytest.mark.parametrize(
    ("words", "position", "expected"),
    [
        ("vmctl st", "1", ["plain,start", "plain,stop", "plain,status"]),
        ("vmctl completion z", "2", ["plain,zsh"]),
    ],
)
def test_bash_is_answered(words: str, position: str, expected: list[str]) -> None:
    done = run(VMCTL, _VMCTL_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=position)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == expected


def test_an_unknown_command_ends_with_2() -> None:
    done = run([*VMCTL, "upp"])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: There is no command 'upp'.\nhint: Did you mean: vmctl up\n"
