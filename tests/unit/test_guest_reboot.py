"""Restarts of a guest: how they are asked for, and how it is known that they happened."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.guest import reboot, script, ssh
from vmctl.guest.ssh import Access
from vmctl.process import Completed

NOWHERE = pathlib.Path("/nonexistent")
ACCESS = Access(
    name="web",
    host="127.0.0.1",
    port=1,
    user="dev",
    key=NOWHERE,
    known_hosts=NOWHERE,
    alias="vmctl-web",
)
ONE, TWO = "5765a6fc-a96a-4ca5-af50-ddbc3445ddfa", "70b6c8a4-8757-4a38-a9bf-f505ea5c386d"


def telling(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, str]) -> None:
    """Have the guest answer like this, one after the other; the last one goes on."""
    left = list(answers)

    def run(argv: list[str], deadline: Deadline, *, check: bool) -> Completed:
        status, text = left.pop(0) if len(left) > 1 else left[0]
        return Completed(tuple(argv), status, text.encode(), b"")

    monkeypatch.setattr(ssh, "answers", lambda *_: True)
    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(Deadline, "pause", lambda *_: None)


def test_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer, found in (
        ((0, f"{ONE}\n"), ONE),
        ((0, f"Welcome!\n{ONE}\n"), ONE),
        ((255, ""), ""),
        ((0, "no such file"), ""),
    ):
        telling(monkeypatch, answer)
        assert reboot.number(ACCESS, Deadline.after(5)) == found
    monkeypatch.setattr(ssh, "answers", lambda *_: False)
    assert reboot.number(ACCESS, Deadline.after(5)) == ""


def test_it_is_back_when_it_shows_another_number(monkeypatch: pytest.MonkeyPatch) -> None:
    telling(monkeypatch, (0, ONE), (255, ""), (0, ONE), (0, TWO))
    reboot.wait(ACCESS, ONE, Deadline.after(60), lambda: False)
    telling(monkeypatch, (0, ONE))
    with pytest.raises(errors.WaitTimeoutError, match="did not come back"):
        reboot.wait(ACCESS, ONE, Deadline.after(0), lambda: False)
    with pytest.raises(errors.InterruptError):
        reboot.wait(ACCESS, ONE, Deadline.after(60), lambda: True)


def ending(monkeypatch: pytest.MonkeyPatch, end: Callable[[], int]) -> None:
    def run(
        access: Access, task: script.Script, deadline: Deadline, heard: script.Heard, _: object
    ) -> int:
        heard(b"sh: reboot: not found\n")
        return end()

    monkeypatch.setattr(script, "run", run)


def test_a_guest_that_is_quick_and_one_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> int:
        raise script.LostError("It broke the connection.")

    ending(monkeypatch, lost)
    reboot.tell(ACCESS, lambda: False)
    ending(monkeypatch, lambda: 0)
    reboot.tell(ACCESS, lambda: False)
    ending(monkeypatch, lambda: 127)
    with pytest.raises(errors.GuestError, match="status 127") as caught:
        reboot.tell(ACCESS, lambda: False)
    assert "not found" in caught.value.details
