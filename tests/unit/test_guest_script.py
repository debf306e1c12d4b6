"""Scripts for a guest: what the shell there is given, tried with the shells of this host."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import time

import pytest

from vmctl.guest import script

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
MARK = "vmctl-0123456789abcdef"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"echo hello\n", ["/bin/sh", "-e"]),
        (b"", ["/bin/sh", "-e"]),
        (b"#!/bin/bash\n", ["/bin/bash"]),
        (b"#! /usr/bin/env python3\nprint()\n", ["/usr/bin/env", "python3"]),
        (b"#!/usr/bin/env -S python3 -u\n", ["/usr/bin/env", "-S python3 -u"]),
        (b"#!/bin/sh -eu\r\n", ["/bin/sh", "-eu"]),
        (b"#!/bin/sh", ["/bin/sh"]),
        (b"#!\n", ["/bin/sh", "-e"]),
        (b"\x7fELF\x02", []),
    ],
)
def test_interpreter(content: bytes, words: list[str]) -> None:
    assert script.interpreter(content) == words


@pytest.mark.parametrize(
    ("login", "user", "command"),
    [
        ("root", "root", "exec /bin/sh -s"),
        ("dev", "root", "exec sudo -n -H -u root /bin/sh -s"),
        ("dev", "dev", "exec /bin/sh -s"),
        ("root", "dev", "exec su -s /bin/sh -c 'exec /bin/sh -s' dev"),
    ],
)
def test_become(login: str, user: str, command: str) -> None:
    assert script._become(login, user) == command


def test_nothing_of_the_script_is_in_the_command() -> None:
    secret = script.Script(content=b"echo s3cret", env={"TOKEN": "t0ken"})
    assert "s3cret" not in script._become("dev", secret.user)
    program = script._program(secret, MARK).decode()
    assert "export TOKEN=t0ken" in program


def begun(shell: str, task: script.Script, place: pathlib.Path) -> subprocess.Popen[bytes]:
    words = [shell, "sh", "-s"] if shell == "busybox" else [shell, "-s"]
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(place), "HOME": str(place)},
    )
    assert process.stdin is not None
    process.stdin.write(script._program(task, MARK))
    process.stdin.flush()
    return process


@pytest.mark.allow_process
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("length", [0, 5000, 8191, 100_000])
def test_every_shell_runs_it(shell: str, length: int, tmp_path: pathlib.Path) -> None:
    """Also where the program is longer than what a shell reads at a time."""
    content = b"#" * length + b'\necho "[$A]"; cat; echo wrong >&2; pwd; exit 3\n'
    task = script.Script(content=content, env={"A": "it's\n two $HOME `lines`"})
    with begun(shell, task, tmp_path) as process:
        assert process.wait(20) == 3
        assert process.stdout is not None
        told = process.stdout.read().decode()
    assert told == f"[it's\n two $HOME `lines`]\nwrong\n{tmp_path}\n\n{MARK} 3\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.allow_process
@pytest.mark.parametrize("shell", SHELLS)
def test_end_of_input_ends_it_with_all_its_children(shell: str, tmp_path: pathlib.Path) -> None:
    task = script.Script(content=b"echo $$; sleep 300 & sleep 300\n")
    with begun(shell, task, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        leader = int(process.stdout.readline())
        os.killpg(leader, 0)
        process.stdin.close()
        assert process.wait(20) == 143
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("children of the step go on")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.allow_process
def test_a_script_ends_at_its_first_failure(tmp_path: pathlib.Path) -> None:
    with begun("sh", script.Script(content=b"false\necho never\n"), tmp_path) as process:
        assert process.wait(20) == 1
        assert process.stdout is not None
        assert b"never" not in process.stdout.read()


@pytest.mark.allow_process
@pytest.mark.parametrize("shell", SHELLS)
def test_it_lies_where_it_is_to_lie(shell: str, tmp_path: pathlib.Path) -> None:
    elsewhere = tmp_path / "it's memory"
    elsewhere.mkdir()
    content = b'ls "$HOME"/*; echo "[${TMPDIR#"$HOME"}]"\n'
    task = script.Script(content=content, place=str(elsewhere), env={"TMPDIR": str(tmp_path)})
    with begun(shell, task, tmp_path) as process:
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert process.stdout.read().decode().startswith("vmctl-step.")
    assert list(tmp_path.iterdir()) == [elsewhere]
    assert list(elsewhere.iterdir()) == []


@pytest.mark.allow_process
def test_other_interpreters_and_bytes_arrive_as_they_are(tmp_path: pathlib.Path) -> None:
    content = b"#!/usr/bin/env python3\nimport sys\nprint(repr('\xc3\xa9'), sys.argv[1:])\n"
    with begun("sh", script.Script(content=content), tmp_path) as process:
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert process.stdout.read().decode().startswith("'é' []\n")
