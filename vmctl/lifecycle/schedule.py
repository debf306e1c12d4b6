"""Works on several machines at once, in the order of their needs, and yields what happens."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from vmctl import errors, interruption
from vmctl.hypervisor import connection as connections
from vmctl.lifecycle.events import Event, Note, Phase, Step


class Worker:
    """What the work on one machine is given: a voice, and the word that it should end."""

    def __init__(self, name: str, say: Callable[[Event], None], crew: Crew) -> None:
        self.name = name
        self._say = say
        self._crew = crew

    @property
    def cancelled(self) -> bool:
        """True once the user wants an end; checked between steps and while waiting."""
        return self._crew.cancelled.is_set()

    def note(self, level: str, text: str, hint: str = "") -> None:
        """Say something that is not a step."""
        self._say(Note(machine=self.name, level=level, text=text, hint=hint))

    @contextlib.contextmanager
    def step(self, what: str, *, patient: bool = False) -> Iterator[Callable[..., None]]:
        """Carry out one step: the block is timed and its end is told.

        Only a few steps run at a time, as many as libvirt takes; `patient` steps, which mostly
        wait, do not count. The block may call the given function with note, done and total.
        """
        if self.cancelled:
            raise errors.InterruptError("Interrupted.")
        slot = contextlib.nullcontext() if patient else connections.CALLS.held()
        with slot:
            begun = time.monotonic()
            self._say(Step(machine=self.name, step=what, phase=Phase.STARTED))

            def progress(note: str = "", done: int = 0, total: int = 0) -> None:
                self._say(
                    Step(
                        machine=self.name,
                        step=what,
                        phase=Phase.PROGRESS,
                        note=note,
                        done=done,
                        total=total,
                        seconds=time.monotonic() - begun,
                    )
                )

            try:
                yield progress
            except BaseException as problem:
                self._say(self._ended(what, Phase.FAILED, begun, str(problem)))
                raise
            self._say(self._ended(what, Phase.DONE, begun, ""))

    def _ended(self, what: str, phase: Phase, begun: float, note: str) -> Step:
        seconds = time.monotonic() - begun
        return Step(machine=self.name, step=what, phase=phase, seconds=seconds, note=note)


class Crew:
    """What the workers of one command share."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()


Work = Callable[[str, Worker], None]


def carry_out(
    names: Sequence[str], needs: Mapping[str, Sequence[str]], work: Work
) -> Iterator[Event]:
    """Do `work` for every name, each after those it needs, and yield the events.

    A machine whose need failed is not begun. When all have ended, the first failure is raised (in
    the order of the names), with the others in its details. Closing the iterator, as Ctrl-C does,
    lets steps that have begun end, and begins no others; programs whose result would be thrown away
    are ended (see `process.run`).
    """
    crew = Crew()
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    over = {name: threading.Event() for name in names}
    failures: dict[str, errors.VmctlError | Exception] = {}

    def attend(name: str) -> None:
        worker = Worker(name, events.put, crew)
        try:
            for need in needs.get(name, ()):
                if need in over:
                    over[need].wait()
                    if need in failures:
                        raise errors.VmctlError(
                            f"Machine '{name}' was not started: it needs '{need}', which failed."
                        )
            with interruption.asked(crew.cancelled.is_set):
                work(name, worker)
        except Exception as problem:  # noqa: BLE001  (it is raised again by the caller's thread)
            failures[name] = problem
        finally:
            over[name].set()
            events.put(None)

    threads = [
        threading.Thread(target=attend, args=(name,), name=f"vmctl-{name}") for name in names
    ]
    try:
        for thread in threads:
            thread.start()
        left = len(threads)
        while left:
            event = events.get()
            if event is None:
                left -= 1
            else:
                yield event
    finally:
        crew.cancelled.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    _raise_first(names, failures)


def _raise_first(names: Sequence[str], failures: Mapping[str, Exception]) -> None:
    in_order = [failures[name] for name in names if name in failures]
    if not in_order:
        return
    # A machine that only missed its need is a consequence; the cause is more telling.
    causes = [problem for problem in in_order if type(problem) is not errors.VmctlError] or in_order
    first, others = causes[0], [problem for problem in in_order if problem is not causes[0]]
    if isinstance(first, errors.VmctlError) and others:
        listing = "\n".join(f"also: {problem}" for problem in others)
        first.details = f"{first.details}\n{listing}".strip()
    raise first
