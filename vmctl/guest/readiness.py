"""Waits until a guest is ready, and says honestly why it is not."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import console_log
from vmctl.machine.model import Accel, Machine
from vmctl.machine.observed import State

_POLL = 0.05
_STATE_EVERY = 10
"""Polls of the log for each question to libvirt."""

_KEPT = 8192
"""Characters of output in which a pattern may span reads."""

_TAIL_LINES = 15
_PANIC = re.compile(r"Kernel panic - not syncing: .*")


class Watch:
    """One guest that is being waited for."""

    def __init__(self, machine: Machine, offset: int, state: Callable[[], tuple[State, str]]):
        self._machine = machine
        self._log = pathlib.Path(machine.console_log)
        self._offset = offset
        self._follower = console_log.Follower(self._log, offset)
        self._state = state
        self._pattern = re.compile(machine.ready.pattern) if machine.ready.pattern else None
        self._text = ""

    @property
    def last_seen(self) -> str:
        """The last line with something in it."""
        return next((line for line in reversed(self._text.splitlines()) if line.strip()), "")

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
        self._read()
        assert self._pattern is not None
        return self._pattern.search(self._text) is not None

    def _read(self) -> None:
        added = self._follower.read().decode("utf-8", "replace")
        self._text = (self._text[-_KEPT:] + added).replace("\r\n", "\n")
        panic = _PANIC.search(self._text)
        if panic is not None:
            raise self._failure(f"the guest panicked ({panic[0][:200]})")

    def _require_running(self) -> None:
        state, reason = self._state()
        if state in (State.CRASHED, State.FAILED):
            raise self._failure(reason)
        if not state.active:
            self._read()
            if self._pattern is not None and self._pattern.search(self._text):
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
        return console_log.last_lines(self._log, _TAIL_LINES, since=self._offset)
