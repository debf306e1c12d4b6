"""Waits until a guest is ready, and says honestly why it is not."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Callable

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import console_log, signs
from vmctl.guest.ssh import Access
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


@dataclasses.dataclass(frozen=True, slots=True)
class Ways:
    """How a guest is looked at from outside: libvirt's state, ssh, the agent.

    `access` returns how ssh reaches it, None while it has no address; it raises UsageError where
    ssh has no way at all.
    """

    state: Callable[[], tuple[State, str]]
    access: Callable[[], Access | None] | None = None
    agent: Callable[[Deadline], bool] | None = None


class Watch:
    """One guest that is being waited for."""

    def __init__(self, machine: Machine, offset: int, ways: Ways):
        self._machine = machine
        self._log = pathlib.Path(machine.console_log)
        self._offset = offset
        self._follower = console_log.Follower(self._log, offset)
        self._ways = ways
        self._sign = _sign(machine, ways)
        self._lines = [""]

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
        if self._sign is None:
            self._require_running()
            return
        try:
            self._wait(self._sign, deadline, seen, cancelled)
        finally:
            self._sign.close()

    def _wait(
        self,
        sign: signs.Sign,
        deadline: Deadline,
        seen: Callable[[str], None],
        cancelled: Callable[[], bool],
    ) -> None:
        polls = 0
        shown = ""
        while not self._ready(sign, deadline):
            if cancelled():
                raise errors.InterruptError("Interrupted; the machine goes on running.")
            if polls % _STATE_EVERY == 0:
                self._require_running()
            if deadline.passed:
                raise self._timeout(sign, deadline)
            polls += 1
            if self.last_seen != shown:
                shown = self.last_seen
                seen(shown)
            deadline.pause(_POLL)

    def _ready(self, sign: signs.Sign, deadline: Deadline) -> bool:
        self._read()
        try:
            return sign.seen(deadline)
        except errors.GuestError as problem:
            raise errors.GuestError(
                f"Machine '{self._machine.name}': {problem.message}",
                hint=problem.hint,
                details=problem.details or self._tail(),
            ) from None

    def _read(self) -> None:
        """Read what came and look at each line, the unfinished last one included."""
        added = self._follower.read().decode("utf-8", "replace").replace("\r", "")
        if not added:
            return
        begun, *others = added.split("\n")
        fresh = [self._lines[-1] + begun, *others]
        for line in fresh:
            self._judge(line[:LONGEST_LINE])
        self._lines = [*self._lines[:-1], *fresh][-_KEPT_LINES:]

    def _judge(self, line: str) -> None:
        if self._sign is not None:
            self._sign.line(line)
        panic = console_log.PANIC.search(line)
        if panic is not None:
            raise self._failure(f"the guest panicked ({panic[0][:200]})")

    def _require_running(self) -> None:
        state, reason = self._ways.state()
        if state in (State.CRASHED, State.FAILED):
            raise self._failure(reason)
        if not state.active:
            self._read()
            if isinstance(self._sign, signs.Console) and self._sign.seen(Deadline.after(0)):
                return
            raise self._failure(f"the guest ended before it was ready ({reason or state})")

    def _failure(self, reason: str) -> errors.GuestError:
        name = self._machine.name
        return errors.GuestError(
            f"Machine '{name}' failed: {reason}.",
            hint=f"Read the whole console: vmctl logs {name}",
            details=self._tail(),
        )

    def _timeout(self, sign: signs.Sign, deadline: Deadline) -> errors.VmctlError:
        name = self._machine.name
        patience = ""
        if self._machine.accel is Accel.TCG:
            patience = " (ten times the usual: the guest runs under TCG)"
        if isinstance(sign, signs.Ssh) and isinstance(sign.refused, errors.RefusedError):
            return sign.refused
        last = f"Last seen: {self.last_seen!r}." if self.last_seen else "The console is silent."
        so_far = f" ({sign.last.rstrip('.')})" if sign.last else ""
        return errors.WaitTimeoutError(
            f"Machine '{name}' did not become ready within {deadline.seconds:g} s{patience}: "
            f"awaited {sign.awaited}{so_far}. {last}",
            hint=f"It goes on running. Look at it: vmctl console {name}; "
            f"wait longer: vmctl wait --timeout 10m {name}",
            details=self._tail(),
        )

    def _tail(self) -> str:
        return _ANSI.sub("", console_log.last_lines(self._log, _TAIL_LINES, since=self._offset))


def _sign(machine: Machine, ways: Ways) -> signs.Sign | None:
    """Return what is waited for; None where the machine is ready as soon as it runs."""
    when = machine.ready.when
    if when == "console" and machine.ready.pattern:
        return signs.Console(machine.ready.pattern)
    if when == "agent" and ways.agent is not None:
        return signs.Agent(ways.agent)
    way = signs.Ssh(ways.access) if ways.access is not None else None
    if when == "cloud-init":
        return signs.CloudInit(way)
    return way if when == "ssh" else None
