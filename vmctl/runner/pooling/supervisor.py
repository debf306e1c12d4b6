"""Keeps the slots of one pool ready and hands them out: one process, one thread that decides.

Killed at any moment, it leaves machines and leases that the next one finds and goes on with.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import queue
import secrets
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import ssh
from vmctl.runner.pooling import lease, pool, pool_client, protocol, refusals, template
from vmctl.runner.pooling.clients import Clients
from vmctl.runner.pooling.ledger import Ledger, Slot, State
from vmctl.runner.pooling.masters import Masters
from vmctl.runner.pooling.pool import Pool
from vmctl.runner.pooling.ready import Ready
from vmctl.runner.pooling.slot import Workshop
from vmctl.store import files, locks
from vmctl.store.layout import Layout

_LOOK_SECONDS = 1.0
"""How often jobs that an earlier supervisor began are looked at."""

_OTHERS_SECONDS = 2.0
_CHUNK = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of the work on a slot."""

    number: int
    ready: Ready | None = None
    left: bool = False
    removed: bool = False
    stays: str = ""
    problem: errors.VmctlError | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Measured:
    """Whether the pool may have so many slots as a client asked for."""

    client: int
    slots: int
    problem: errors.VmctlError | None = None


def serve(layout: Layout, name: str, begun: Callable[[], None] = lambda: None) -> None:
    """Supervise a pool until it is deleted or the process is asked to end (SIGTERM, Ctrl-C).

    `begun` is called when clients can connect. Raises ConflictError where another supervisor runs.
    """
    pool.read(layout, name)
    # One that is just ending, after a deletion say, is waited for.
    limit = Deadline.after(_OTHERS_SECONDS)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.hold(layout.lock("pool", name), limit, f"Pool '{name}'"))
        except errors.ConflictError:
            pool_client.refuse_second(layout, name)
            raise
        # Whoever had the lock may have changed or deleted it.
        supervisor = Supervisor(layout, pool.read(layout, name))
        try:
            supervisor.listen()
            begun()
            supervisor.run()
        except KeyboardInterrupt:
            pass
        finally:
            supervisor.close()


class Supervisor:
    """The state of one supervising process."""

    def __init__(self, layout: Layout, found: Pool) -> None:
        self._layout = layout
        self._place = layout.pool(found.name)
        self.pool = found
        self._ledger = Ledger(found.slots, found.refills, time.monotonic())
        self._ledger.drained = found.drained
        self._ledger.resize(found.slots, time.monotonic(), pool.leftover_slots(layout, found))
        self._workshop = Workshop(layout, found, self._said)
        self._threads = concurrent.futures.ThreadPoolExecutor(
            max_workers=pool.MOST_REFILLS, thread_name_prefix="vmctl-slot"
        )
        # Never behind the slots: reading a spec takes a moment, making machines minutes.
        self._measuring = concurrent.futures.ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="vmctl-scale"
        )
        self._outcomes: queue.SimpleQueue[_Outcome | _Measured] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._clients = Clients(self._selector, self._asked, self._gone)
        self._masters = Masters(self._selector, self._guest_gone)
        self._waker, self._woken = socket.socketpair()
        self._looked = 0.0
        self._began = time.time()
        self._deleting = False
        self._stay: list[str] = []
        self._busy = time.monotonic()

    def listen(self) -> None:
        """Let clients connect."""
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain_wakes)
        self._clients.listen(self._place.socket)

    def run(self) -> None:
        """Decide what is next until the pool is deleted."""
        while True:
            self._take_outcomes()
            self._look_at_left()
            self._hand_out()
            # After that: a slot that could not be handed out is reset.
            self._begin_work()
            self._refuse_waiting()
            self._answer_waiting()
            if (self._deleting and not self._ledger.slots) or self._idle():
                return
            for key, _ in self._selector.select(self._patience()):
                key.data()

    def close(self) -> None:
        """End what is under way, and the socket; machines and leases stay."""
        self._workshop.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._measuring.shutdown(wait=True, cancel_futures=True)
        self._clients.stop_listening()
        if self._deleting and not self._ledger.slots:
            pool.remove(self._layout, self.pool.name)
            self._answer_waiting()
        self._clients.close()
        self._masters.close()
        self._selector.close()
        self._waker.close()
        self._woken.close()

    def _patience(self) -> float | None:
        """Return for how long nothing happens by itself."""
        now = time.monotonic()
        times = [self._ledger.next_retry()] if self._ledger.next_retry() is not None else []
        if self._ledger.of(State.LEFT):
            times.append(self._looked + _LOOK_SECONDS)
        if self.pool.idle:
            times.append(max(now + _LOOK_SECONDS, self._busy + self.pool.idle))
        known = [each for each in times if each is not None]
        return max(0.01, min(known) - now) if known else None

    def _idle(self) -> bool:
        """Tell whether nobody has wanted a machine for long; those that are ready then rest."""
        now = time.monotonic()
        if len(self._clients) or self._ledger.of(State.CLAIMED, State.LEFT, State.WORKING):
            self._busy = now
        if not self.pool.idle or now - self._busy < self.pool.idle:
            return False
        self._clients.stop_listening()
        for slot in self._ledger.of(State.READY):
            self._masters.let_go(slot.number)
            with contextlib.suppress(errors.VmctlError):
                self._workshop.rest(slot.number)
        return True

    # What the threads do.

    def _said(self, number: int, step: str) -> None:
        slot = self._ledger.slots.get(number)
        if slot is not None:
            slot.doing = step

    def _begin_work(self) -> None:
        while (slot := self._ledger.begin(time.monotonic())) is not None:
            self._threads.submit(self._work, slot.number, slot.unwanted, slot.adopt)

    def _work(self, number: int, unwanted: bool, adopt: bool) -> None:
        try:
            outcome = self._worked(number, unwanted, adopt)
        except errors.VmctlError as problem:
            outcome = _Outcome(number, problem=problem)
        except Exception as problem:  # noqa: BLE001  (a supervisor goes on)
            text = f"The supervisor failed: {type(problem).__name__}: {problem}"
            outcome = _Outcome(number, problem=errors.VmctlError(text))
        self._came(outcome)

    def _came(self, outcome: _Outcome | _Measured) -> None:
        """Hand the deciding thread what came of something, and wake it."""
        self._outcomes.put(outcome)
        with contextlib.suppress(OSError):
            self._waker.send(b"!")

    def _worked(self, number: int, unwanted: bool, adopt: bool) -> _Outcome:
        place = self._place.lease(number)
        if adopt:
            was_given = lease.granted(place)
            if was_given and not lease.clear(place):
                return _Outcome(number, left=True)
            if not was_given and not unwanted:
                with contextlib.suppress(errors.VmctlError):
                    ready = self._workshop.adopt(number)
                    if ready is not None:
                        return _Outcome(number, ready=ready)
        if unwanted:
            return _Outcome(number, removed=True, stays=self._workshop.remove(number))
        ready = self._workshop.renew(number)
        lease.grant(place, "")
        return _Outcome(number, ready=ready)

    def _take_outcomes(self) -> None:
        while True:
            try:
                found = self._outcomes.get_nowait()
            except queue.Empty:
                return
            now = time.monotonic()
            if isinstance(found, _Measured):
                self._scaled(found)
            elif found.removed:
                self._stay += [found.stays] if found.stays and self._deleting else []
                self._ledger.removed(found.number, now)
            elif found.left:
                self._ledger.left(self._ledger.slots[found.number], now)
            elif found.ready is not None:
                self._ledger.renewed(found.number, found.ready, now)
                if self._ledger.slots[found.number].state is State.READY:
                    self._masters.hold(found.number, found.ready)
            elif found.problem is not None:
                problem = refusals.words(found.problem)
                self._ledger.failed(found.number, problem, found.problem.hint, now)

    def _look_at_left(self) -> None:
        """See whether jobs that an earlier supervisor began have ended."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        for slot in self._ledger.of(State.LEFT):
            with contextlib.suppress(OSError):
                if lease.clear(self._place.lease(slot.number)):
                    self._ledger.used(slot, now)

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(_CHUNK):
                pass

    def _guest_gone(self, number: int) -> None:
        """Note that the connection to a guest ended, and mostly the guest with it."""
        slot = self._ledger.slots.get(number)
        if slot is not None and slot.state is State.READY:
            self._ledger.used(slot, time.monotonic())

    # The clients.

    def _gone(self, number: int) -> None:
        """Take a slot back from a client that has gone."""
        slot = self._ledger.leave(number, time.monotonic())
        if slot is not None:
            lease.revoke(self._place.lease(slot.number))

    def _asked(self, number: int, question: dict[str, Any]) -> None:
        """Answer a question, or remember that it is to be answered."""
        match question.get("ask"):
            case "claim":
                self._claim(number)
            case "status":
                self._clients.answer(number, self.status())
            case "metrics":
                from vmctl.runner.pooling import pool_metrics

                text = pool_metrics.text([self.status()])
                self._clients.answer(number, {"ok": True, "text": text})
            case "scale":
                self._scale(number, int(question["slots"]))
            case "drain":
                self._change(drained=bool(question.get("drained", True)))
                if self.pool.drained:
                    self._clients.wait(number, "idle")
                else:
                    self._clients.answer(number, {"ok": True})
            case "delete":
                self._delete(number, force=bool(question.get("force")))
            case other:
                raise errors.UsageError(f"The supervisor does not know what '{other}' asks for.")

    def _claim(self, number: int) -> None:
        if self._ledger.knows(number):
            raise errors.UsageError("A connection claims one machine, once.")
        refusal = self._refusal()
        if refusal is not None:
            raise refusal
        self._ledger.ask(number, time.monotonic())

    def _refusal(self) -> errors.VmctlError | None:
        return refusals.of_claim(self.pool, self._ledger, deleting=self._deleting)

    def _refuse_waiting(self) -> None:
        """Tell those who wait when there is nothing to wait for any more."""
        refusal = self._refusal() if self._ledger.queue else None
        if refusal is not None:
            for each in list(self._ledger.queue):
                self._ledger.leave(each.client, time.monotonic())
                self._clients.answer(each.client, protocol.refusal(refusal))

    def _hand_out(self) -> None:
        """Give ready slots to those who wait; a lease is written down before it is told."""
        for number, slot in self._ledger.matched(self._fit, time.monotonic()):
            assert slot.ready is not None
            given = secrets.token_hex(8)
            place = self._place.lease(slot.number)
            told = {"ok": True, "slot": slot.number, "lease": given, "file": os.fspath(place)}
            told |= slot.ready.as_dict()
            try:
                lease.grant(place, given)
            except OSError as problem:
                self._ledger.used(slot, time.monotonic())
                told = protocol.refusal(files.unusable(place, problem))
            if not self._clients.answer(number, told):
                # It may have gone before it was known to have a slot.
                self._gone(number)
            self._masters.let_go(slot.number)

    def _fit(self, slot: Slot) -> bool:
        ready = slot.ready
        return ready is not None and ready.untouched(self._layout) and _usable(slot)

    def _scale(self, number: int, slots: int) -> None:
        if not 0 <= slots <= pool.MOST_SLOTS:
            raise errors.UsageError(f"A pool has 0 to {pool.MOST_SLOTS} slots; got {slots}.")
        held = len(self._ledger.slots)
        if slots > held:
            self._measuring.submit(self._measure, number, slots, self.pool, held)
        else:
            self._scaled(_Measured(number, slots))

    def _measure(self, number: int, slots: int, found: Pool, held: int) -> None:
        """See whether so many slots fit; in a thread, as reading the spec takes its time."""
        try:
            template.require_room(found, template.of(found, 1).machine, slots, held=held)
            measured = _Measured(number, slots)
        except errors.VmctlError as problem:
            measured = _Measured(number, slots, problem)
        except Exception as problem:  # noqa: BLE001  (a supervisor goes on)
            text = f"The supervisor failed: {type(problem).__name__}: {problem}"
            measured = _Measured(number, slots, errors.VmctlError(text))
        self._came(measured)

    def _scaled(self, measured: _Measured) -> None:
        """Give the pool another number of slots, if it may and the client still wants it."""
        if measured.client not in self._clients:
            return
        answer: dict[str, Any] = {"ok": True}
        try:
            if measured.problem is not None:
                raise measured.problem
            if self._deleting:
                raise errors.ConflictError(f"Pool '{self.pool.name}' is being deleted.")
            self._change(slots=measured.slots)
            self._ledger.resize(measured.slots, time.monotonic())
        except errors.VmctlError as problem:
            answer = protocol.refusal(problem)
        self._clients.answer(measured.client, answer)

    def _change(self, **fields: Any) -> None:
        changed = dataclasses.replace(self.pool, **fields)
        pool.write(self._layout, changed)
        self.pool = changed
        self._workshop.pool = self.pool
        self._ledger.drained = self.pool.drained

    def _delete(self, number: int, *, force: bool) -> None:
        self._change(drained=True)
        self._deleting = True
        self._ledger.resize(0, time.monotonic())
        self._clients.wait(number, "empty")
        for slot in self._ledger.of(State.CLAIMED) if force else ():
            self._clients.hang_up(slot.client)
        for slot in self._ledger.of(State.LEFT) if force else ():
            lease.revoke(self._place.lease(slot.number))
            self._ledger.used(slot, time.monotonic())

    def _answer_waiting(self) -> None:
        """Answer those who wait for the end of all jobs, or of all machines."""
        busy = bool(self._ledger.of(State.CLAIMED, State.LEFT))
        gone = self._deleting and not self._place.directory.exists()
        over = {"idle": not busy, "empty": gone}
        for number in self._clients.waiting(*(what for what, done in over.items() if done)):
            self._clients.answer(number, {"ok": True, "stay": self._stay})
        refusal = refusals.of_deletion(self.pool, self._ledger) if self._deleting else None
        if refusal is not None:
            for number in self._clients.waiting("empty"):
                self._clients.answer(number, protocol.refusal(refusal))

    def status(self) -> dict[str, Any]:
        """Return all that is known of the pool now."""
        now = time.monotonic()
        return {
            "ok": True,
            "pool": dataclasses.asdict(self.pool),
            "supervisor": os.getpid(),
            "began": self._began,
            "waiting": len(self._ledger.queue),
            "deleting": self._deleting,
            "counts": dataclasses.asdict(self._ledger.counts),
            "slots": [self._told(slot, now) for slot in self._ledger.of(*State)],
        }

    def _told(self, slot: Slot, now: float) -> dict[str, Any]:
        return {
            "slot": slot.number,
            "machine": self.pool.machine(slot.number),
            "state": slot.state.value,
            "seconds": round(now - slot.since, 1),
            "doing": slot.doing,
            "problem": slot.problem,
            "hint": slot.hint,
            "claims": slot.claims,
            "leaving": slot.unwanted,
        }


def _usable(slot: Slot) -> bool:
    """Tell whether a slot's guest still answers: its connection ends with it."""
    return slot.ready is not None and ssh.shared(slot.ready.access)
