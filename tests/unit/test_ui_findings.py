"""How the doctor's findings look where nobody watches: plain, complete, causes grouped."""

from __future__ import annotations

import pytest

from vmctl.doctor import codes
from vmctl.doctor.model import Level
from vmctl.ui import findings

BAD = {"cause": "It is\x1b[31m broken.", "fix": "sudo mend --it && sudo keep --it"}
FOUND = [
    codes.ok("HOST001", "x86_64"),
    codes.finding("KVM001", Level.FAILURE, "cannot be used", **BAD),
    codes.finding("KVM010", Level.FAILURE, "the probe failed", **BAD),
    codes.finding("NET001", Level.WARNING, "slow", cause="No vhost.", fix="modprobe vhost_net"),
]


def test_plain(capsys: pytest.CaptureFixture[str]) -> None:
    findings.show(FOUND, closing=["word " * 40])
    shown = capsys.readouterr().out
    assert "KVM001   KVM            fail     cannot be used\n" in shown
    assert "KVM001, KVM010 KVM\n  It is\\x1b[31m broken.\n" in shown
    assert "  fix: sudo mend --it && sudo keep --it\n" in shown
    assert shown.count("sudo mend") == 1
    assert "\x1b" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_nothing_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    findings.show([])
    assert capsys.readouterr().out == "CODE  CHECK  RESULT  DETAIL\n"
