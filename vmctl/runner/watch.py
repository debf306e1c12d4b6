"""Sees at once that a run's machine cannot go on: a panic, the end of QEMU, KVM giving up."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable

from vmctl import errors
from vmctl.guest import console_log
from vmctl.machine.state import State

_STATE_EVERY = 5
"""Looks at the console for each question to libvirt."""

_UNWRITABLE = "a disk cannot be written (is the host's disk full?)"
"""What libvirt's layer says of a guest that QEMU has paused at an I/O error."""

_TAIL_LINES = 15
_LONGEST_LINE = 4096


class Watch:
    """A guard of a machine; see `job.Guard`.

    `state` asks libvirt, `pull` pulls the plug. What libvirt cannot tell is no trouble: its daemon
    may be started anew while the guest goes on. The console is ours from the byte `since` on.
    """

    def __init__(
        self,
        name: str,
        log: pathlib.Path,
        state: Callable[[], tuple[State, str]],
        pull: Callable[[], None],
        *,
        since: int = 0,
    ) -> None:
        self._name = name
        self._log = log
        self._since = since
        self._follower = console_log.Follower(log, since)
        self._state = state
        self._pull = pull
        self._line = ""
        self._looks = 0
        self._pulled = False

    def trouble(self) -> errors.VmctlError | None:
        """Return why the guest cannot go on, with the end of its console; else None."""
        added = self._follower.read().decode("utf-8", "replace").replace("\r", "")
        text = self._line + added
        panic = console_log.PANIC.search(text)
        if panic is not None:
            return self._failure(f"the guest panicked ({panic[0][:200]})")
        self._line = text.rpartition("\n")[2][-_LONGEST_LINE:]
        self._looks += 1
        return self.ended() if self._looks % _STATE_EVERY == 1 else None

    def ended(self) -> errors.VmctlError | None:
        """Ask libvirt alone."""
        try:
            state, reason = self._state()
        except errors.VmctlError:
            return None
        if state in (State.CRASHED, State.FAILED):
            return self._failure(reason)
        if state is State.PAUSED and reason == _UNWRITABLE:
            # Nobody resumes it, and whoever waits for it would wait for ever.
            return self._failure(f"QEMU paused its guest: {reason}")
        if not state.active:
            return self._failure("its guest ended, or its QEMU was killed")
        return None

    def end(self) -> None:
        """Pull the plug, once."""
        if not self._pulled:
            self._pulled = True
            with contextlib.suppress(errors.VmctlError):
                self._pull()

    def _failure(self, reason: str) -> errors.GuestError:
        return errors.GuestError(
            f"The machine '{self._name}' failed while the job was in it: {reason}.",
            details=console_log.last_lines(self._log, _TAIL_LINES, since=self._since),
        )
