"""What a guest says of its mounts, put into sentences."""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Callable

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import mounts, script
from vmctl.guest.ssh import Access
from vmctl.machine import mounting
from vmctl.machine.model import Mount, Share

NOWHERE = pathlib.Path("/nonexistent")
ACCESS = Access(
    name="web",
    host="127.0.0.1",
    port=1,
    user="root",
    key=NOWHERE,
    known_hosts=NOWHERE,
    alias="vmctl-web",
)
ONE = Mount(host="/a", guest="/one")
TWO = Mount(host="/b", guest="/with space", writable=True, share=Share.VIRTIOFS)


def make(monkeypatch: pytest.MonkeyPatch, said: str, status: int) -> list[script.Script]:
    asked: list[script.Script] = []

    def run(
        access: Access, task: script.Script, deadline: Deadline, heard: Callable[[bytes], None]
    ) -> int:
        asked.append(task)
        heard(said.encode())
        return status

    monkeypatch.setattr(script, "run", run)
    mounts.over_ssh(ACCESS, [ONE, TWO], Deadline.after(1))
    return asked


def test_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = make(monkeypatch, "", 0)
    assert task.user == "root"
    assert task.content.decode() == mounting.guest_script([ONE, TWO])


def test_failures_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        f"noise\n{mounting.FAILED} {ONE.tag} no-driver\n"
        f"{mounting.FAILED} {TWO.tag} mount: bad superblock\n{mounting.FAILED} other x\n"
    )
    with pytest.raises(errors.GuestError) as caught:
        make(monkeypatch, said, 1)
    assert caught.value.message == (
        "Machine 'web' cannot mount '/one': the guest's kernel has no 9p; "
        "'/with space': mount: bad superblock."
    )
    assert "vmctl cp" in caught.value.hint


def test_a_script_that_fails_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.GuestError, match=r"status 127") as caught:
        make(monkeypatch, "sh: sed: not found\n", 127)
    assert caught.value.details == "sh: sed: not found"


def test_commands_for_a_person() -> None:
    commands = mounts.by_hand([ONE, TWO]).split("; ")
    assert shlex.split(commands[0])[:3] == ["mount", "-t", "9p"]
    assert shlex.split(commands[1])[-2:] == [TWO.tag, "/with space"]
