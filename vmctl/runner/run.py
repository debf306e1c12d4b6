"""`vmctl run`: each combination of a matrix is a job in a machine of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vmctl import errors
from vmctl.guest import ssh
from vmctl.guest.remote import Streams
from vmctl.guest.ssh import Access
from vmctl.lifecycle import schedule
from vmctl.lifecycle.events import Event
from vmctl.lifecycle.schedule import Worker
from vmctl.runner import outputs
from vmctl.runner.job import OWN_FAILURE, Copy, Guard, Job, Outcome, carry_out
from vmctl.runner.matrix import Combination
from vmctl.runner.timings import Stage, Timings
from vmctl.store import home, records
from vmctl.store.layout import Layout

if TYPE_CHECKING:
    from vmctl.lifecycle.steps import Site
    from vmctl.machine.model import Machine
    from vmctl.runner.pooling.pool_client import Claim
    from vmctl.runner.wanted import Wanted

NO_BOUNDARY = "The guest runs under TCG, which is no security boundary: trust what runs in it."

_LOOK = "The machine is gone. To look into it, run it again with --keep-on-failure."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for; `jobs` machines are there at a time, at most.

    `serial_log` is where the guest's console goes to; with a matrix, several files beside it.
    `pool` names the pool whose machines are taken; empty where they are made as `wanted` says.
    `warm` makes such a pool, of one machine, where there is none.
    """

    wanted: Wanted | None
    job: Job
    combinations: tuple[Combination, ...] = (Combination(),)
    jobs: int = 1
    keep_on_failure: bool = False
    serial_log: str = ""
    uri: str | None = None
    pool: str = ""
    warm: bool = False


@dataclasses.dataclass(slots=True, kw_only=True)
class Result:
    """How one combination ended; None until it has. `kept` says that its machine is there still."""

    combination: Combination
    timings: Timings
    outcome: Outcome | None = None
    name: str = ""
    mode: str = ""
    kept: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        outcome = self.outcome
        problem = outcome.problem if outcome is not None else None
        first = self.timings.first_output
        return {
            "machine": self.name,
            "matrix": dict(self.combination.values),
            "mode": self.mode,
            "status": outcome.status if outcome is not None else None,
            "timed_out": outcome.timed_out if outcome is not None else False,
            "failed": outcome.failed if outcome is not None else True,
            "error": problem.message if problem is not None else "",
            "details": problem.details if problem is not None else "",
            "remarks": list(outcome.remarks) if outcome is not None else [],
            "kept": self.kept,
            "first_output": round(first, 3) if first is not None else None,
            "timings": self.timings.as_dict(),
        }


class Runs:
    """All runs of one command; `results` has them in the order of the matrix, at any time.

    `streams` gives a combination its streams for as long as its command runs.
    """

    def __init__(
        self,
        request: Request,
        streams: Callable[[Combination], contextlib.AbstractContextManager[Streams]],
    ) -> None:
        self.request = request
        self.results = [
            Result(combination=each, timings=Timings()) for each in request.combinations
        ]
        self._streams = streams
        self._slots = threading.BoundedSemaphore(request.jobs)
        self._told = threading.Event()
        self._crowded: set[int] = set()
        self._cleared = threading.Lock()
        self._swept = False

    def events(self) -> Iterator[Event]:
        """Carry them out. Closing the iterator ends those that go on, with their machines."""
        by_label = {result.combination.label: result for result in self.results}
        self._require_logs()
        self._make_directories()

        def work(label: str, worker: Worker) -> None:
            result = by_label[label]
            with self._turn(worker):
                result.timings = Timings()
                try:
                    run = self._from_pool if self.request.pool or self.request.warm else self._run
                    result.outcome = run(result, worker)
                except errors.InterruptError:
                    raise
                except errors.VmctlError as problem:
                    result.outcome = Outcome(status=OWN_FAILURE, problem=problem)
                except BrokenPipeError:
                    # Nobody reads what the command writes any more.
                    raise
                except Exception as problem:  # noqa: BLE001  (the others go on, and it is reported)
                    result.outcome = Outcome(status=OWN_FAILURE, problem=_unforeseen(problem))
                self._correct_hint(result)

        yield from schedule.carry_out(list(by_label), {}, work)

    def _correct_hint(self, result: Result) -> None:
        """Take back a hint that leads to a machine which is gone by now, or reset."""
        problem = result.outcome.problem if result.outcome is not None else None
        if problem is None or result.kept or not result.name or result.name not in problem.hint:
            return
        ours = not (self.request.pool or self.request.warm or self.request.keep_on_failure)
        problem.hint = _LOOK if ours else ""

    @contextlib.contextmanager
    def _turn(self, worker: Worker) -> Iterator[None]:
        """Wait until fewer than so many run."""
        while not self._slots.acquire(timeout=0.1):
            if worker.cancelled:
                raise errors.InterruptError("Interrupted.")
        try:
            yield
        finally:
            self._slots.release()

    def _run(self, result: Result, worker: Worker) -> Outcome:
        # Not for machines of a pool: a claim takes less time than these imports.
        from vmctl.hypervisor import connection as connections
        from vmctl.lifecycle.steps import Site
        from vmctl.runner import berth, cold, wanted

        layout = Layout.default()
        home.opened(layout)
        clock = result.timings
        with contextlib.ExitStack() as stack:
            with clock.stage(Stage.IMAGE):
                connection = stack.enter_context(connections.opened(self.request.uri, layout))
                site = Site(connection, layout)
                self._sweep(site)
                result.name = stack.enter_context(berth.held(site, cold.quietly("")))
                asked = self._wanted(result)
                with asked.named():
                    found = wanted.find(asked, site, result.name, worker)
            result.mode = found.machine.mode.value
            self._tell(found.machine, worker)
            self._warn_of_cpus(found.machine, worker)
            bad = True
            try:
                keep = self.request.keep_on_failure
                cold.start(site, found, worker, clock, outlives=keep)
                outcome = self._in_machine(site, found.machine, result, worker)
                bad = outcome.status != 0
                return outcome
            except errors.InterruptError:
                bad = False
                raise
            finally:
                self._save_log(found.machine, result.combination, worker)
                if not (bad and self._kept(site, found.machine, result)):
                    with clock.stage(Stage.TEARDOWN):
                        cold.remove(site, result.name)

    def _kept(self, site: Site, machine: Machine, result: Result) -> bool:
        """Keep the machine of a job that failed, where that was asked for and there is one."""
        from vmctl.runner import cold

        if self.request.keep_on_failure:
            with contextlib.suppress(errors.VmctlError):
                cold.keep(site, machine)
                result.kept = True
        return result.kept

    def _from_pool(self, result: Result, worker: Worker) -> Outcome:
        """Do the job in a warm machine, which its pool resets afterwards."""
        with contextlib.ExitStack() as stack:
            with result.timings.stage(Stage.CLAIM), self._named(result):
                claim = stack.enter_context(self._claimed(result))
            result.name = claim.machine
            record = records.read(Layout.default().machine(claim.machine))
            result.mode = record.mode if record is not None else ""
            try:
                return self._job(claim.access, claim, result, worker)
            finally:
                ssh.disconnect(claim.access)

    def _named(self, result: Result) -> contextlib.AbstractContextManager[None]:
        return self._wanted(result).named() if self.request.warm else contextlib.nullcontext()

    def _claimed(self, result: Result) -> contextlib.AbstractContextManager[Claim]:
        if not self.request.warm:
            from vmctl.runner.pooling import pool_client

            return pool_client.claimed(self.request.pool)
        from vmctl.hypervisor import connection as connections
        from vmctl.runner.pooling import warm

        asked = self._wanted(result)
        uri = self.request.uri or connections.default_uri()
        return warm.claimed(asked.what, uri, sets=asked.sets, allow_outside=asked.allow_outside)

    def _in_machine(self, site: Site, machine: Machine, result: Result, worker: Worker) -> Outcome:
        from vmctl.runner import cold

        way = cold.reach(site, machine, worker, result.timings)
        try:
            return self._job(way, cold.guard(site, machine), result, worker)
        finally:
            ssh.disconnect(way)

    def _job(self, way: Access, guard: Guard, result: Result, worker: Worker) -> Outcome:
        job = self._of(result.combination)
        with (
            worker.step("command", patient=True),
            self._streams(result.combination) as streams,
        ):
            return carry_out(
                way,
                job,
                streams,
                guard=guard,
                cancelled=lambda: worker.cancelled,
                timings=result.timings,
            )

    def _wanted(self, result: Result) -> Wanted:
        from vmctl.runner import wanted

        options = result.combination.options
        asked = self.request.wanted
        assert asked is not None
        if "image" in options:
            asked = dataclasses.replace(asked, what=options["image"])
        laid = wanted.sets({key: value for key, value in options.items() if key != "image"})
        typed = {**asked.typed, **wanted.typed(options, "--matrix {}=…")}
        return dataclasses.replace(asked, sets=(*asked.sets, *laid), typed=typed)

    def _of(self, combination: Combination) -> Job:
        """Return the job of a combination; its files come out into a directory of their own."""
        job = self.request.job
        if not combination.values:
            return job
        out = tuple(
            Copy(each.source, str(pathlib.Path(each.target, combination.file_name)))
            for each in job.copies_out
        )
        return dataclasses.replace(job, env={**job.env, **combination.env}, copies_out=out)

    def _make_directories(self) -> None:
        """Make what files of a matrix come out into, before a machine is started.

        Raises HostError.
        """
        for result in self.results if self.request.combinations[0].values else ():
            for each in self._of(result.combination).copies_out:
                try:
                    pathlib.Path(each.target).mkdir(parents=True, exist_ok=True)
                except OSError as problem:
                    raise errors.HostError(
                        f"The directory '{each.target}' to copy into could not be made: "
                        f"{problem.strerror}."
                    ) from None

    def _sweep(self, site: Site) -> None:
        """Remove what killed runs left, once for each command."""
        with self._cleared:
            if not self._swept:
                self._swept = True
                from vmctl.runner import berth, cold

                berth.clear(site, cold.quietly(""))

    def _tell(self, machine: Machine, worker: Worker) -> None:
        """Say once that emulated guests are not shut in."""
        from vmctl.machine.model import Accel

        if machine.accel is Accel.TCG and not self._told.is_set():
            self._told.set()
            why = f"{machine.why.rstrip('.')}. " if machine.fallback else ""
            worker.note("info", f"{why}{NO_BOUNDARY}", machine.remedy if why else "")

    def _warn_of_cpus(self, machine: Machine, worker: Worker) -> None:
        """Say, once for each number, that a guest has more processors than there are."""
        there = os.cpu_count() or machine.cpus
        if machine.cpus > there and machine.cpus not in self._crowded:
            self._crowded.add(machine.cpus)
            worker.note(
                "warning",
                f"The machine has {machine.cpus} virtual CPUs, the host {there}: they take turns. "
                "Where there are many times as many, the guest may not boot in time.",
                f"Give it no more than the host has: --cpus {there}",
            )

    def _log_of(self, combination: Combination) -> str:
        beside = f".{combination.file_name}" if combination.values else ""
        return f"{self.request.serial_log}{beside}"

    def _require_logs(self) -> None:
        """Raise HostError where a guest's console could not be written to its file."""
        for result in self.results if self.request.serial_log else ():
            outputs.require(self._log_of(result.combination), "serial log", replaced=False)

    def _save_log(self, machine: Machine, combination: Combination, worker: Worker) -> None:
        """Give the person the guest's console, where it was asked for."""
        if self.request.serial_log and os.path.exists(machine.console_log):
            target = self._log_of(combination)
            try:
                shutil.copyfile(machine.console_log, target)
            except OSError as problem:
                why = problem.strerror or problem
                worker.note("warning", f"The serial log '{target}' could not be written: {why}.")

    @property
    def status(self) -> int:
        """The worst status: a failure of vmctl's own, then a timeout, then the largest."""
        statuses = [_severity(result.outcome) for result in self.results]
        return max(statuses)[1]


def _unforeseen(problem: Exception) -> errors.VmctlError:
    """Return what is said of a failure that nobody foresaw."""
    failure = errors.VmctlError(
        f"vmctl met an error of its own in this run: {type(problem).__name__}: {problem}.",
        hint="Run it again with --debug for the traceback.",
    )
    failure.__cause__ = problem
    return failure


def _severity(outcome: Outcome | None) -> tuple[int, int]:
    if outcome is None or outcome.failed:
        return 2, OWN_FAILURE
    return (1 if outcome.timed_out else 0), outcome.status
