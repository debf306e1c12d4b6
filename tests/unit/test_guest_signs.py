"""By what it is seen that a guest is ready."""

from __future__ import annotations

import pathlib
import time

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import signs
from vmctl.guest.ssh import Access

PATIENCE = 20.0


def access(port: int) -> Access:
    return Access(
        name="web",
        host="127.0.0.1",
        port=port,
        user="dev",
        key=pathlib.Path("/nowhere/id_ed25519"),
        known_hosts=pathlib.Path("/nowhere/known_hosts"),
        alias="vmctl-web",
    )


FINAL = (
    "[   8.2] cloud-init[405]: Cloud-init v. 22.4.2 finished at Fri, 20 Nov 2026 10:46:01 +0000."
)
NEWER = "cloud-init[1]: Cloud-init v. 24.4-0ubuntu1~24.04.2 finished at Fri, 20 Nov 2026. Up 9 s"
FAILED = "2026-11-20 - util.py[WARNING]: Running module scripts-user (<module>) failed"


@pytest.mark.parametrize("line", [FINAL, NEWER])
def test_cloud_inits_last_words_suffice_where_there_is_no_way_in(line: str) -> None:
    sign = signs.CloudInit(None)
    sign.line("Cloud-init v. 22.4.2 running 'modules:final' at Fri")
    assert not sign.seen(Deadline.after(1))
    sign.line(line)
    assert sign.seen(Deadline.after(1))


def test_cloud_inits_failures_are_told() -> None:
    sign = signs.CloudInit(None)
    sign.line(FAILED)
    sign.line(FINAL)
    with pytest.raises(errors.GuestError, match="scripts-user") as failure:
        sign.seen(Deadline.after(1))
    assert failure.value.exit_code == 8


@pytest.fixture
def logged_in(monkeypatch: pytest.MonkeyPatch) -> signs.Ssh:
    way = signs.Ssh(lambda: access(22))
    way.access, way.greeted = access(22), True
    monkeypatch.setattr(way, "seen", lambda _deadline: True)
    return way


@pytest.mark.parametrize(
    ("written", "ready"),
    [
        ("", False),
        ('{"v1": {"datasource": "x"', False),
        ('{"v1": {"datasource": "x", "errors": []}}', True),
    ],
)
def test_cloud_inits_own_account_counts(logged_in, monkeypatch, written, ready) -> None:  # type: ignore[no-untyped-def]
    sign = signs.CloudInit(logged_in)
    monkeypatch.setattr(sign, "_ask", lambda _command, _deadline: written)
    sign.line(FINAL)
    assert sign.seen(Deadline.after(1)) is ready


def test_errors_in_cloud_inits_own_account_name_the_module(logged_in, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    written = '{"v1": {"errors": ["(\'scripts_user\', RuntimeError(\'1 failures\'))"]}}'
    answers = {"result": written, "log": "cc_scripts_user.py[WARNING]: Failed to run module"}
    sign = signs.CloudInit(logged_in)
    monkeypatch.setattr(
        sign, "_ask", lambda command, _: answers["result" if "result.json" in command else "log"]
    )
    sign.line(FINAL)
    with pytest.raises(errors.GuestError, match="scripts_user") as failure:
        sign.seen(Deadline.after(1))
    assert "cc_scripts_user" in failure.value.details


def test_the_agent_is_asked_now_and_then() -> None:
    asked: list[float] = []

    def ping(deadline: Deadline) -> bool:
        asked.append(deadline.remaining)
        return len(asked) == 2

    sign = signs.Agent(ping)
    deadline = Deadline.after(PATIENCE)
    while not sign.seen(deadline):
        assert not deadline.passed
        time.sleep(0.01)
    assert len(asked) == 2
    assert max(asked) <= 2.0
