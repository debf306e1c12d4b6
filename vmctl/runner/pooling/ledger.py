"""Who has which slot, who waits, and what is to be done next. Pure: no clock, no process."""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator

from vmctl.runner.pooling.ready import Ready

_FIRST_RETRY = 2.0
_LAST_RETRY = 60.0


class State(enum.StrEnum):
    """What a slot is."""

    WAITING = "waiting"
    """It is to be reset or made, and its turn has not come."""

    WORKING = "working"
    READY = "ready"
    CLAIMED = "claimed"
    LEFT = "left"
    """Claimed from an earlier supervisor; the job still runs."""

    FAILED = "failed"
    """It could not be made; tried again later."""


@dataclasses.dataclass(slots=True)
class Slot:
    """One slot; times are seconds on one clock.

    `doing` is the step under way, `problem` why it failed last, `claims` how many jobs it had,
    `adopt` that an earlier supervisor may have left it ready. `unwanted` slots are removed.
    """

    number: int
    state: State = State.WAITING
    since: float = 0.0
    ready: Ready | None = None
    client: int = 0
    doing: str = ""
    problem: str = ""
    hint: str = ""
    failures: int = 0
    retry: float = 0.0
    claims: int = 0
    adopt: bool = True
    unwanted: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """A client that waits for a slot, and since when."""

    client: int
    since: float


@dataclasses.dataclass(slots=True)
class Counts:
    """What happened since the supervisor began; seconds are sums."""

    claims: int = 0
    claim_seconds: float = 0.0
    longest_claim: float = 0.0
    renewals: int = 0
    renewal_seconds: float = 0.0
    failures: int = 0
    abandoned: int = 0


class Ledger:
    """The slots of a pool and the queue before them."""

    def __init__(self, wanted: int, refills: int, now: float) -> None:
        self.slots: dict[int, Slot] = {}
        self.queue: collections.deque[Waiting] = collections.deque()
        self.counts = Counts()
        self.refills = refills
        self.drained = False
        self.resize(wanted, now)

    def resize(self, wanted: int, now: float, others: Iterable[int] = ()) -> None:
        """Have so many slots; those above, and `others` that are known of, become unwanted."""
        for number in sorted({*range(1, wanted + 1), *others} - set(self.slots)):
            self.slots[number] = Slot(number, since=now)
        for slot in self.slots.values():
            if slot.number > wanted and not slot.unwanted:
                # What failed was its making; nobody tried to remove it.
                slot.problem, slot.hint, slot.failures = "", "", 0
            slot.unwanted = slot.number > wanted
            if slot.unwanted and slot.state in (State.READY, State.FAILED):
                self._turn(slot, State.WAITING, now)
                slot.retry = now

    def ask(self, client: int, now: float) -> None:
        """Put a client at the end of the queue."""
        self.queue.append(Waiting(client, now))

    def knows(self, client: int) -> bool:
        """Tell whether a client waits, or has a slot."""
        return any(each.client == client for each in self.queue) or any(
            slot.client == client for slot in self.of(State.CLAIMED)
        )

    def leave(self, client: int, now: float) -> Slot | None:
        """Note that a client is gone; returns the slot that it had."""
        waiting = len(self.queue)
        self.queue = collections.deque(each for each in self.queue if each.client != client)
        self.counts.abandoned += waiting - len(self.queue)
        for slot in self.slots.values():
            if slot.state is State.CLAIMED and slot.client == client:
                self.used(slot, now)
                return slot
        return None

    def used(self, slot: Slot, now: float) -> None:
        """Have a slot reset: a job has seen it, or its guest is gone."""
        slot.client, slot.ready, slot.adopt = 0, None, False
        self._turn(slot, State.WAITING, now)
        slot.retry = now

    def left(self, slot: Slot, now: float) -> None:
        """Note that the job of an earlier supervisor still runs in a slot."""
        self._turn(slot, State.LEFT, now)

    def matched(self, usable: Callable[[Slot], bool], now: float) -> Iterator[tuple[int, Slot]]:
        """Give slots to those who wait, the first one first; yields client and slot.

        The slot that has been ready longest goes first: all of them are as used as the others. One
        that is not usable any more is reset.
        """
        ready = sorted(self.of(State.READY), key=lambda slot: slot.since)
        for slot in ready:
            if not self.queue or self.drained:
                return
            if not usable(slot):
                self.used(slot, now)
                continue
            first = self.queue.popleft()
            waited = now - first.since
            slot.client = first.client
            slot.claims += 1
            self._turn(slot, State.CLAIMED, now)
            self.counts.claims += 1
            self.counts.claim_seconds += waited
            self.counts.longest_claim = max(self.counts.longest_claim, waited)
            yield first.client, slot

    def of(self, *states: State) -> list[Slot]:
        """Return the slots in these states, by number."""
        return [slot for _, slot in sorted(self.slots.items()) if slot.state in states]

    def begin(self, now: float) -> Slot | None:
        """Return the next slot to work on, marked so; None where no more may be begun.

        Those that wait longest first. A failed one comes again when its time has come.
        """
        if len(self.of(State.WORKING)) >= self.refills:
            return None
        due = [slot for slot in self.of(State.WAITING, State.FAILED) if slot.retry <= now]
        if not due:
            return None
        slot = min(due, key=lambda each: (each.failures > 0, each.since, each.number))
        self._turn(slot, State.WORKING, now)
        return slot

    def renewed(self, number: int, ready: Ready, now: float) -> None:
        """Note that a slot is ready."""
        slot = self.slots[number]
        self.counts.renewals += 1
        self.counts.renewal_seconds += now - slot.since
        slot.ready, slot.problem, slot.hint, slot.failures = ready, "", "", 0
        self._turn(slot, State.READY, now)
        if slot.unwanted:
            self.used(slot, now)

    def failed(self, number: int, problem: str, hint: str, now: float) -> None:
        """Note that a slot could not be made; it is tried again, less and less often."""
        slot = self.slots[number]
        self.counts.failures += 1
        slot.problem, slot.hint, slot.failures = problem, hint, slot.failures + 1
        slot.adopt, slot.ready = False, None
        slot.retry = now + min(_LAST_RETRY, _FIRST_RETRY * 2 ** (slot.failures - 1))
        self._turn(slot, State.FAILED, now)

    def removed(self, number: int, now: float) -> None:
        """Forget a slot whose machine is gone; one that is wanted again meanwhile is made anew."""
        if self.slots[number].unwanted:
            del self.slots[number]
        else:
            self.slots[number] = Slot(number, since=now, retry=now, adopt=False)

    def hopeless(self) -> Slot | None:
        """Return a failed slot where all of them are: who waits now would wait for nothing."""
        wanted = [slot for slot in self.slots.values() if not slot.unwanted]
        failed = [slot for slot in wanted if slot.state is State.FAILED]
        return failed[0] if failed and len(failed) == len(wanted) else None

    def next_retry(self) -> float | None:
        """Return when a failed slot is due."""
        times = [slot.retry for slot in self.of(State.FAILED)]
        return min(times, default=None)

    @staticmethod
    def _turn(slot: Slot, state: State, now: float) -> None:
        slot.state, slot.since, slot.doing = state, now, ""
