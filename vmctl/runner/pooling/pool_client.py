"""Gets a machine from a pool for one job, and gives it back, whatever happens."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import console_log, ssh
from vmctl.guest.ssh import Access
from vmctl.runner.pooling import lease, pool, protocol, refusals
from vmctl.runner.pooling.pool import Pool
from vmctl.runner.pooling.protocol import Call
from vmctl.runner.pooling.ready import Ready
from vmctl.store.layout import Layout

CLAIM_SECONDS = 600.0
"""How long a job waits for a machine unless it says otherwise."""

_LEASE_SECONDS = 2.0
_TRIES = 5
_TAIL_LINES = 15
_LONGEST_LINE = 4096
_LONGEST_WORDS = 200


class Console:
    """What a guest's console says from now on; what earlier jobs had it say is not shown.

    Only what is new is read at each look, and libvirt may give the log another name meanwhile.
    """

    def __init__(self, log: pathlib.Path) -> None:
        self._log = log
        self.begin = console_log.size(log)
        self._follower = console_log.Follower(log, self.begin)
        self._line = ""
        self._words = ""
        # The first look is what tells this log from the one after it.
        self.panic()

    def panic(self) -> str:
        """Return the words of a panic, once there was one; else nothing."""
        added = self._follower.read().decode("utf-8", "replace").replace("\r", "")
        text = self._line + added
        found = console_log.PANIC.search(text)
        if found is not None and not self._words:
            self._words = found[0].strip()[:_LONGEST_WORDS]
        self._line = text.rpartition("\n")[2][-_LONGEST_LINE:]
        return self._words

    def tail(self) -> str:
        """Return the last lines."""
        rotated = console_log.size(self._log) < self.begin
        return console_log.last_lines(self._log, _TAIL_LINES, since=0 if rotated else self.begin)


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A machine of a pool that is ours for one job; a `job.Guard` as well.

    `generation` names this life of its guest, `waited` is how long the claim took (seconds).
    """

    machine: str
    access: Access
    generation: str
    waited: float
    console: Console

    @property
    def offset(self) -> int:
        """The length of the console's log (bytes) when the claim began."""
        return self.console.begin

    def trouble(self) -> errors.VmctlError | None:
        """Return why the guest cannot go on, or None."""
        words = self.console.panic()
        if not words:
            return None
        return errors.GuestError(
            f"The guest of machine '{self.machine}' panicked: {words}",
            hint=f"Read its console: vmctl logs {self.machine}",
            details=self.console.tail(),
        )

    def end(self) -> None:
        """End all that runs in the guest for us: its connection."""
        with contextlib.suppress(errors.VmctlError):
            ssh.disconnect(self.access)


@contextlib.contextmanager
def claimed(
    name: str, deadline: Deadline | None = None, *, layout: Layout | None = None
) -> Iterator[Claim]:
    """Have a machine of a pool for the length of the block, reachable at once.

    Those who ask first get one first. However the block ends, also by SIGKILL, the machine is given
    back and reset. Raises NotFoundError for no such pool, ConflictError for one that nobody
    supervises or that is drained, WaitTimeoutError at the deadline, HostError where no machine of
    the pool can be made.
    """
    layout = layout or Layout.default()
    found = pool.read(layout, name)
    limit = deadline or Deadline.after(CLAIM_SECONDS)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        given = _given(stack, layout, found, limit)
        ready = Ready.from_dict(given)
        yield Claim(
            machine=ready.machine,
            access=ready.access,
            generation=ready.generation,
            waited=time.monotonic() - began,
            console=Console(layout.machine(ready.machine).console_log),
        )


def _given(
    stack: contextlib.ExitStack, layout: Layout, found: Pool, limit: Deadline
) -> dict[str, Any]:
    """Claim a slot and hold its lease; again where a new supervisor took it back meanwhile."""
    for _ in range(_TRIES):
        call = _supervisor(layout, found.name)
        try:
            given = call.ask(limit, ask="claim")
            holding = lease.held(
                pathlib.Path(given["file"]), given["lease"], limit.within(_LEASE_SECONDS)
            )
            stack.enter_context(holding)
        except lease.LostError:
            call.close()
            continue
        except errors.WaitTimeoutError:
            call.close()
            raise _late(layout, found.name, limit) from None
        except BaseException:
            call.close()
            raise
        # Closed before the lock is let go of: the supervisor resets the slot at once.
        stack.callback(call.close)
        return given
    raise errors.ConflictError(
        f"Machines of pool '{found.name}' were taken back as soon as they were given.",
        hint=f"See what its supervisor does: vmctl pool status {found.name}",
    )


def _late(layout: Layout, name: str, limit: Deadline) -> errors.WaitTimeoutError:
    told = status(layout, name) or {}
    states = [str(each["state"]) for each in told.get("slots", ())]
    ahead = max(0, int(told.get("waiting", 0)))
    return errors.WaitTimeoutError(
        f"Pool '{name}' had no machine for this job within {limit.seconds:g} s: of its "
        f"{len(states)} slots {states.count('claimed')} are claimed and {states.count('failed')} "
        f"failed; {ahead} others wait.",
        hint=f"See it: vmctl pool status {name}; give it more: vmctl pool scale {name} N",
    )


def _supervisor(layout: Layout, name: str) -> Call:
    call = protocol.call(layout.pool(name).socket)
    if call is None:
        raise errors.ConflictError(
            f"Nobody supervises pool '{name}'.",
            hint=f"Start its supervisor: vmctl pool serve --background {name}; with systemd: "
            f"systemctl start vmctl-pool@{name}",
        )
    return call


def ask(layout: Layout, name: str, deadline: Deadline, **question: Any) -> dict[str, Any]:
    """Ask a pool's supervisor and return its answer; raises ConflictError where there is none."""
    with _supervisor(layout, name) as call:
        return call.ask(deadline, **question)


def status(layout: Layout, name: str) -> dict[str, Any] | None:
    """Return what a pool's supervisor tells of it; None where there is none."""
    call = protocol.call(layout.pool(name).socket)
    if call is None:
        return None
    with call:
        try:
            return call.ask(Deadline.after(_LEASE_SECONDS * 5), ask="status")
        except errors.VmctlError:
            return None


def refuse_second(layout: Layout, name: str) -> None:
    """Raise ConflictError where somebody supervises a pool."""
    told = status(layout, name)
    if told is not None:
        raise refusals.supervised(name, int(told["supervisor"]))
