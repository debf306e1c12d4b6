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
from vmctl.runner.pooling import lease, pool, protocol, template
from vmctl.runner.pooling.ledger import Ledger, Slot, State
from vmctl.runner.pooling.masters import Masters
from vmctl.runner.pooling.pool import Pool
from vmctl.runner.pooling.ready import Ready
from vmctl.runner.pooling.slot import Workshop
from vmctl.store import locks
from vmctl.store.layout import Layout

_LOOK_SECONDS = 1.0
"""How often jobs that an earlier supervisor began are looked at."""

_OTHERS_SECONDS = 2.0
_BACKLOG = 128
_CHUNK = 1 << 16
_SENT_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of the work on a slot."""

    number: int
    ready: Ready | None = None
    left: bool = False
    removed: bool = False
    problem: errors.VmctlError | None = None


@dataclasses.dataclass(slots=True)
class _Client:
    """A connection, and what its answer waits for: a drained or an empty pool."""

    peer: socket.socket
    lines: protocol.Lines = dataclasses.field(default_factory=protocol.Lines)
    awaits: str = ""


def serve(layout: Layout, name: str, begun: Callable[[], None] = lambda: None) -> None:
    """Supervise a pool until it is deleted or the process is asked to end (SIGTERM, Ctrl-C).

    `begun` is called when clients can connect. Raises ConflictError where another supervisor runs.
    """
    found = pool.read(layout, name)
    # One that is just ending, after a deletion say, is waited for.
    limit = Deadline.after(_OTHERS_SECONDS)
    with locks.hold(layout.lock("pool", name), limit, f"Pool '{name}'"):
        supervisor = Supervisor(layout, found)
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
        self._outcomes: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._clients: dict[int, _Client] = {}
        self._masters = Masters(self._selector, self._guest_gone)
        self._waker, self._woken = socket.socketpair()
        self._listener: socket.socket | None = None
        self._looked = 0.0
        self._began = time.time()
        self._deleting = False
        self._busy = time.monotonic()

    def listen(self) -> None:
        """Let clients of the same account connect, and nobody else."""
        self._place.socket.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            with protocol.short(self._place.socket) as address:
                self._listener.bind(address)
        finally:
            os.umask(before)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain_wakes)

    def run(self) -> None:
        """Decide what is next until the pool is deleted."""
        while True:
            self._take_outcomes()
            self._look_at_left()
            self._begin_work()
            self._hand_out()
            self._answer_waiting()
            if (self._deleting and not self._ledger.slots) or self._idle():
                return
            for key, _ in self._selector.select(self._patience()):
                key.data()

    def close(self) -> None:
        """End what is under way, and the socket; machines and leases stay."""
        self._workshop.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._stop_listening()
        if self._deleting and not self._ledger.slots:
            pool.remove(self._layout, self.pool.name)
            self._answer_waiting()
        for client in self._clients.values():
            client.peer.close()
        self._masters.close()
        self._selector.close()
        self._waker.close()
        self._woken.close()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._place.socket.unlink(missing_ok=True)
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

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
        if self._clients or self._ledger.of(State.CLAIMED, State.LEFT, State.WORKING):
            self._busy = now
        if not self.pool.idle or now - self._busy < self.pool.idle:
            return False
        self._stop_listening()
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
            self._workshop.remove(number)
            return _Outcome(number, removed=True)
        return _Outcome(number, ready=self._workshop.renew(number))

    def _take_outcomes(self) -> None:
        while True:
            try:
                found = self._outcomes.get_nowait()
            except queue.Empty:
                return
            now = time.monotonic()
            if found.removed:
                self._ledger.removed(found.number)
            elif found.left:
                self._ledger.left(self._ledger.slots[found.number], now)
            elif found.ready is not None:
                self._ledger.renewed(found.number, found.ready, now)
                if self._ledger.slots[found.number].state is State.READY:
                    self._masters.hold(found.number, found.ready)
            elif found.problem is not None:
                self._ledger.failed(found.number, found.problem.message, found.problem.hint, now)

    def _look_at_left(self) -> None:
        """See whether jobs that an earlier supervisor began have ended."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        for slot in self._ledger.of(State.LEFT):
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

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        peer.setblocking(False)
        self._clients[peer.fileno()] = _Client(peer)
        number = peer.fileno()
        self._selector.register(peer, selectors.EVENT_READ, lambda: self._heard(number))

    def _heard(self, number: int) -> None:
        client = self._clients.get(number)
        if client is None:
            # Hung up on since it was heard.
            return
        try:
            data = client.peer.recv(_CHUNK)
            if data:
                for line in client.lines.feed(data):
                    self._asked(number, protocol.decode(line))
                return
        except BlockingIOError:
            return
        except errors.VmctlError as problem:
            self._answer(number, protocol.refusal(problem))
            return
        except (OSError, ValueError, TypeError, LookupError):
            # A connection that broke, or nobody that speaks our language.
            pass
        self._hang_up(number)

    def _hang_up(self, number: int) -> None:
        client = self._clients.pop(number, None)
        if client is None:
            return
        self._selector.unregister(client.peer)
        client.peer.close()
        slot = self._ledger.leave(number, time.monotonic())
        if slot is not None:
            lease.revoke(self._place.lease(slot.number))

    def _answer(self, number: int, answer: dict[str, Any]) -> bool:
        client = self._clients.get(number)
        if client is None:
            return False
        try:
            client.peer.settimeout(_SENT_SECONDS)
            client.peer.sendall(protocol.encode(answer))
            client.peer.setblocking(False)
        except OSError:
            self._hang_up(number)
            return False
        return True

    def _asked(self, number: int, question: dict[str, Any]) -> None:
        """Answer a question, or remember that it is to be answered."""
        match question.get("ask"):
            case "claim":
                self._claim(number)
            case "status":
                self._answer(number, self.status())
            case "metrics":
                from vmctl.runner.pooling import pool_metrics

                text = pool_metrics.text([self.status()])
                self._answer(number, {"ok": True, "text": text})
            case "scale":
                self._scale(int(question["slots"]))
                self._answer(number, {"ok": True})
            case "drain":
                self._change(drained=bool(question.get("drained", True)))
                self._clients[number].awaits = "idle" if self.pool.drained else ""
                if not self.pool.drained:
                    self._answer(number, {"ok": True})
            case "delete":
                self._delete(number, force=bool(question.get("force")))
            case other:
                raise errors.UsageError(f"The supervisor does not know what '{other}' asks for.")

    def _claim(self, number: int) -> None:
        name = self.pool.name
        if self._ledger.knows(number):
            raise errors.UsageError("A connection claims one machine, once.")
        if self.pool.drained or self._deleting:
            raise errors.ConflictError(
                f"Pool '{name}' is drained: it hands no machines out.",
                hint=f"Let it go on: vmctl pool drain --resume {name}",
            )
        hopeless = self._ledger.hopeless()
        if hopeless is not None:
            raise errors.HostError(
                f"No machine of pool '{name}' can be made ready: {hopeless.problem}",
                hint=hopeless.hint,
            )
        self._ledger.ask(number, time.monotonic())

    def _hand_out(self) -> None:
        """Give ready slots to those who wait; a lease is written down before it is told."""
        for number, slot in self._ledger.matched(_usable, time.monotonic()):
            assert slot.ready is not None
            given = secrets.token_hex(8)
            place = self._place.lease(slot.number)
            lease.grant(place, given)
            told = {"ok": True, "slot": slot.number, "lease": given, "file": os.fspath(place)}
            self._answer(number, {**told, **slot.ready.as_dict()})
            self._masters.let_go(slot.number)

    def _scale(self, slots: int) -> None:
        if not 0 <= slots <= pool.MOST_SLOTS:
            raise errors.UsageError(f"A pool has 0 to {pool.MOST_SLOTS} slots; got {slots}.")
        held = len(self._ledger.slots)
        if slots > held:
            machine = template.of(self.pool, 1).machine
            template.require_room(self.pool, machine, slots, held=held)
        self._change(slots=slots)
        self._ledger.resize(slots, time.monotonic())

    def _change(self, **fields: Any) -> None:
        self.pool = dataclasses.replace(self.pool, **fields)
        pool.write(self._layout, self.pool)
        self._workshop.pool = self.pool
        self._ledger.drained = self.pool.drained

    def _delete(self, number: int, *, force: bool) -> None:
        self._change(drained=True)
        self._deleting = True
        self._ledger.resize(0, time.monotonic())
        self._clients[number].awaits = "empty"
        for slot in self._ledger.of(State.CLAIMED) if force else ():
            self._hang_up(slot.client)
        for slot in self._ledger.of(State.LEFT) if force else ():
            lease.revoke(self._place.lease(slot.number))
            self._ledger.used(slot, time.monotonic())

    def _answer_waiting(self) -> None:
        """Answer those who wait for the end of all jobs, or of all machines."""
        busy = bool(self._ledger.of(State.CLAIMED, State.LEFT))
        gone = self._deleting and not self._place.directory.exists()
        for number, client in list(self._clients.items()):
            if (client.awaits == "idle" and not busy) or (client.awaits == "empty" and gone):
                client.awaits = ""
                self._answer(number, {"ok": True})

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
