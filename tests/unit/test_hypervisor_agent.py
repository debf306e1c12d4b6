"""What the guest agent's answers and refusals become."""

from __future__ import annotations

import base64
import json
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.hypervisor import agent, domains


class Refusal(libvirt.libvirtError):
    """An error of libvirt with a number and a text of the test's own."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self._number, self._text = number, text

    def get_error_code(self) -> int:
        return self._number

    def get_error_message(self) -> str:
        return self._text

    def get_error_domain(self) -> int:
        return 0


class Guest:
    """Stands for the agent: gives out prepared answers and keeps the questions."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.seconds: list[int] = []

    def __call__(self, _domain: object, text: str, seconds: int, _flags: int) -> str:
        self.asked.append(json.loads(text))
        self.seconds.append(seconds)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else json.dumps({"return": answer})


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Any:
    def play(*answers: Any) -> Guest:
        made = Guest(*answers)
        monkeypatch.setattr(domains, "get", lambda *_: None)
        monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", made)
        return made

    return play


def ask(command: str = "guest-ping") -> Any:
    return agent.ask(None, "web", command, {}, Deadline.after(5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "text", "kind", "says"),
    [
        (74, "QEMU guest agent is not configured", errors.UsageError, "full and hardware"),
        (86, "QEMU guest agent is not connected", errors.ConflictError, "still booting"),
        (86, "Guest agent not available for now", errors.WaitTimeoutError, "did not answer"),
        (
            1,
            "unable to execute: Command guest-exec has been disabled for this instance",
            errors.GuestError,
            "does not allow",
        ),
        (38, "something else", errors.HypervisorError, "something else"),
    ],
)
def test_refusals(
    guest: Any, number: int, text: str, kind: type[errors.VmctlError], says: str
) -> None:
    guest(Refusal(number, text))
    with pytest.raises(kind) as caught:
        ask()
    assert says in caught.value.message
    assert "'web'" in caught.value.message


@pytest.mark.parametrize("answer", ["", "[]", "no json", '{"return": 5}', '{"error": {}}'])
def test_odd_answers(guest: Any, answer: str) -> None:
    guest(answer)
    with pytest.raises(errors.GuestError, match="oddly"):
        ask()


def test_no_call_waits_for_ever(guest: Any) -> None:
    played = guest({}, {})
    ask()
    agent.ask(None, "web", "guest-ping", {}, Deadline.after(0))  # type: ignore[arg-type]
    assert all(0 < seconds <= 60 for seconds in played.seconds)


def test_statuses(guest: Any) -> None:
    guest(
        {"exited": False},
        {"exited": True, "exitcode": 7},
        {"exited": True, "signal": 9},
        {"exited": True},
    )
    deadline = Deadline.after(5)
    got = [agent.status(None, "web", 1, deadline) for _ in range(4)]  # type: ignore[arg-type]
    assert got == [None, 7, 137, 0]


def test_files_go_in_pieces_that_agents_take(guest: Any) -> None:
    data = bytes(range(256)) * 400
    played = guest(3)
    deadline = Deadline.after(5)
    file = agent.File(None, "web", "/x", "w", deadline)  # type: ignore[arg-type]
    rest = len(data) - agent.PIECE - 1000
    played.answers = [
        {"count": agent.PIECE},
        {"count": 1000},
        *({"count": min(agent.PIECE, rest - done)} for done in range(0, rest, agent.PIECE)),
        {},
    ]
    file.write(data, deadline)
    file.close(deadline)
    pieces = [
        base64.b64decode(each["arguments"]["buf-b64"])
        for each in played.asked
        if each["execute"] == "guest-file-write"
    ]
    assert max(map(len, pieces)) == agent.PIECE
    # The second piece was written in part only, and its rest came again.
    assert pieces[0] + pieces[1][:1000] + b"".join(pieces[2:]) == data


def test_a_full_guest(guest: Any) -> None:
    guest(3, {"count": 0})
    file = agent.File(None, "web", "/x", "w", Deadline.after(5))  # type: ignore[arg-type]
    with pytest.raises(errors.GuestError, match="no room"):
        file.write(b"x", Deadline.after(5))
