"""Waits until a guest is ready, and says honestly why it is not."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import console_log
from vmctl.machine.model import Accel, Machine
from vmctl.machine.state import State
from vmctl.spec.pattern import LONGEST_LINE

_POLL = 0.05
_STATE_EVERY = 10
"""Polls of the log for each question to libvirt."""

_KEPT_LINES = 20
_ANSI = re.compile(r"\x1b\[[0-9;?=]*[A-Za-z]")
"""What terminals take as commands; firmware writes screens full of it."""

_TAIL_LINES = 15


class Watch:
    """One guest that is being waited for."""

    def __init__(self, machine: Machine, offset: int, state: Callable[[], tuple[State, str]]):
        self._machine = machine
        self._log = pathlib.Path(machine.console_log)
        self._offset = offset
        self._follower = console_log.Follower(self._log, offset)
        self._state = state
        self._pattern = re.compile(machine.ready.pattern) if machine.ready.pattern else None
        self._lines = [""]
        self._matched = False

    @property
    def last_seen(self) -> str:
        """The last line with something in it."""
        plain = (_ANSI.sub("", line).strip() for line in reversed(self._lines))
        return next((line for line in plain if line), "")

    def wait(
        self, deadline: Deadline, seen: Callable[[str], None], cancelled: Callable[[], bool]
    ) -> None:
        """Return when the guest is ready; `seen` is told each new last line.

        Raises GuestError when the guest panicked or ended, WaitTimeoutError at the deadline with
        the end of the console log, InterruptError when cancelled.
        """
        if self._machine.ready.when == "running" or self._pattern is None:
            self._require_running()
            return
        polls = 0
        shown = ""
        while not self._ready():
            if cancelled():
                raise errors.InterruptError("Interrupted; the machine goes on running.")
            if polls % _STATE_EVERY == 0:
                self._require_running()
            if deadline.passed:
                raise self._timeout(deadline)
            polls += 1
            if self.last_seen != shown:
                shown = self.last_seen
                seen(shown)
            deadline.pause(_POLL)

    def _ready(self) -> bool:
        """Read what came and look at each line, the unfinished last one included."""
        added = self._follower.read().decode("utf-8", "replace").replace("\r", "")
        if not added:
            return self._matched
        begun, *others = added.split("\n")
        fresh = [self._lines[-1] + begun, *others]
        for line in fresh:
            self._judge(line[:LONGEST_LINE])
        self._lines = [*self._lines[:-1], *fresh][-_KEPT_LINES:]
        return self._matched

    def _judge(self, line: str) -> None:
        if self._pattern is not None and self._pattern.search(line):
            self._matched = True
        panic = console_log.PANIC.search(line)
        if panic is not None:
            raise self._failure(f"the guest panicked ({panic[0][:200]})")

    def _require_running(self) -> None:
        state, reason = self._state()
        if state in (State.CRASHED, State.FAILED):
            raise self._failure(reason)
        if not state.active:
            if self._ready():
                return
            raise self._failure(f"the guest ended before it was ready ({reason or state})")

    def _failure(self, reason: str) -> errors.GuestError:
        name = self._machine.name
        return errors.GuestError(
            f"Machine '{name}' failed: {reason}.",
            hint=f"Read the whole console: vmctl logs {name}",
            details=self._tail(),
        )

    def _timeout(self, deadline: Deadline) -> errors.WaitTimeoutError:
        name = self._machine.name
        patience = ""
        if self._machine.accel is Accel.TCG:
            patience = " (ten times the usual: the guest runs under TCG)"
        last = f"Last seen: {self.last_seen!r}." if self.last_seen else "The console is silent."
        return errors.WaitTimeoutError(
            f"Machine '{name}' did not become ready within {deadline.seconds:g} s{patience}: "
            f"awaited {self._machine.ready.pattern!r} on its console. {last}",
            hint=f"It goes on running. Look at it: vmctl console {name}; "
            f"wait longer: vmctl wait --timeout 10m {name}",
            details=self._tail(),
        )

    def _tail(self) -> str:
        return _ANSI.sub("", console_log.last_lines(self._log, _TAIL_LINES, since=self._offset))
