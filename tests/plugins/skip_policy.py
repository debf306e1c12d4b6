"""A skip must be foreseen: its reason matches a line of allowed-skips.txt, or the run fails."""

from __future__ import annotations

import pathlib
import re

import pytest

ALLOWED_FILE = pathlib.Path(__file__).parents[1] / "allowed-skips.txt"


def read_allowed(text: str) -> list[re.Pattern[str]]:
    """Return the patterns of the file: one regular expression a line, `#` begins a comment line."""
    lines = (line.strip() for line in text.splitlines())
    return [re.compile(line) for line in lines if line and not line.startswith("#")]


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return what the skipping test said."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


class SkipPolicy:
    """Gathers the skips of one session and judges them at its end."""

    def __init__(self, allowed: list[re.Pattern[str]]) -> None:
        self.allowed = allowed
        self.unforeseen: list[str] = []

    def judge(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Remember a skip whose reason no pattern matches as a whole."""
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = reason_of(report)
        if not any(pattern.fullmatch(reason) for pattern in self.allowed):
            self.unforeseen.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test was skipped by a marker, a fixture or itself."""
        self.judge(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A whole module was skipped."""
        self.judge(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """An unforeseen skip fails a run that would have passed."""
        if self.unforeseen and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which skips made the run fail."""
        if not self.unforeseen:
            return
        terminalreporter.section("skips that tests/allowed-skips.txt does not allow", red=True)
        for line in self.unforeseen:
            terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Judge the skips of this session."""
    allowed = read_allowed(ALLOWED_FILE.read_text(encoding="utf-8"))
    config.pluginmanager.register(SkipPolicy(allowed), "skip-policy")
