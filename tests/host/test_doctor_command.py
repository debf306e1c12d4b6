"""`vmctl doctor` as a program, on this host."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import subprocess
import sys
import time

import pytest

from vmctl.deadline import Deadline
from vmctl.doctor import codes
from vmctl.doctor.asking import Inquiry
from vmctl.host.facts import HostFacts
from vmctl.store.layout import Layout

TEST_DRIVER = "test:///default"


def doctor(
    *words: str, uri: str = TEST_DRIVER, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "vmctl", "-c", uri, "doctor", *words]
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
    )


@pytest.fixture(autouse=True)
def own_store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMCTL_HOME", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_json_is_whole_and_the_exit_status_is_the_verdict() -> None:
    for mode in ("auto", "full", "hardware", "paravirt", "tcg-virtio"):
        done = doctor("--json", "--mode", mode)
        data = json.loads(done.stdout)
        assert done.returncode == (0 if data["verdict"]["usable"] else 5)
        assert data["mode"] == mode
        assert data["libvirt"]["reachable"]
        assert HostFacts.from_dict(data["host"]).architecture == os.uname().machine
        assert {each["code"] for each in data["findings"]} <= codes.TITLES.keys()
        assert done.stderr == ""


def test_plain_text_names_every_check() -> None:
    done = doctor("--no-probe")
    for code in ("HOST001", "KVM001", "LIBVIRT001", "STORE003", "MODE001"):
        assert f"\n{code} " in f"\n{done.stdout}"
    assert "\x1b" not in done.stdout


def test_quiet_says_only_what_is_not_well() -> None:
    rows = [line.split() for line in doctor("-q").stdout.splitlines()]
    assert not [row for row in rows if "ok" in row[2:4]]


def test_on_a_terminal_it_has_colours_unless_unwanted() -> None:
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        leader, follower = pty.openpty()
        argv = [sys.executable, "-m", "vmctl", "-c", TEST_DRIVER, "doctor"]
        child = subprocess.Popen(
            argv,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment},
        )
        os.close(follower)
        shown = b""
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not piece:
                break
            shown += piece
        os.close(leader)
        assert child.wait(timeout=60) in (0, 5)
        assert (b"\x1b[31m" in shown or b"\x1b[32m" in shown) is coloured
        table = shown.decode().split("\r\n\r\n")[0]
        plain = table.replace("\x1b", "") if coloured else table
        assert "KVM001" in plain


def test_libvirt_that_is_not_there_is_a_finding() -> None:
    done = doctor("--json", uri="qemu+unix:///system?socket=/nonexistent")
    data = json.loads(done.stdout)
    finding = next(each for each in data["findings"] if each["code"] == "LIBVIRT001")
    assert finding["level"] == "failure"
    assert finding["cause"]
    assert finding["fix"]
    assert done.returncode == 5


def test_a_libvirt_that_hangs_is_waited_for_no_longer_than_the_deadline(
    tmp_path: pathlib.Path,
) -> None:
    import socket

    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        started = time.monotonic()
        inquiry = Inquiry(
            f"qemu+unix:///system?socket={path}", Layout(tmp_path), Deadline.after(0.5)
        )
        answer = inquiry.answer()
    assert time.monotonic() - started < 5
    assert not answer.reachable
    assert "did not answer" in answer.error


def test_a_place_for_results_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    done = doctor("--fresh", env={"XDG_CACHE_HOME": str(tmp_path / "file")})
    assert done.returncode in (0, 5)
    assert done.stderr == ""


def test_an_unknown_mode_is_a_usage_error() -> None:
    assert doctor("--mode", "warp").returncode == 2
