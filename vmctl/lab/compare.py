"""A comparison from beginning to end: rounds of all contenders, and nothing left afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import pathlib
import random
import shutil
import time
from collections.abc import Callable, Iterator

from vmctl import __version__, errors
from vmctl.deadline import Deadline
from vmctl.host import gather, verdict
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor.connection import Connection
from vmctl.images import build
from vmctl.images import catalog as images
from vmctl.lab import catalog, container, direct, field, job, peers, program, schedule, tools
from vmctl.lab import host as lab_host
from vmctl.lab.field import Bench, Entries
from vmctl.lab.job import Job
from vmctl.lab.results import Contender, Results, State
from vmctl.lab.trial import Trial
from vmctl.lab.workload import Workload
from vmctl.lifecycle import schedule as crews
from vmctl.lifecycle.events import Event
from vmctl.lifecycle.schedule import Worker
from vmctl.machine.model import Image
from vmctl.store import files, home, locks, storage
from vmctl.store.layout import Layout

_FACTS_SECONDS = 20.0
_BUILD_SECONDS = 1800.0
_DEFAULT_IMAGE = "tiny"
_GIVEN_UP_AFTER = 2
"""Void runs one after the other, from the first on, after which a contender is left out."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for. `named` says that the modes are the user's choice, not the default."""

    path: pathlib.Path
    modes: tuple[str, ...]
    named: bool
    workloads: tuple[Workload, ...]
    rounds: int
    slice_seconds: float
    slices: int
    seed: int
    uri: str | None = None
    baseline: str = ""
    against_itself: bool = False

    @property
    def runs(self) -> int:
        """How many runs there are, the warm-up included."""
        return (self.rounds + 1) * len(self.modes) * (2 if self.against_itself else 1)


class _Voice:
    """Hands the user's wish to end to a run, and what it sees to the user."""

    def __init__(self, worker: Worker, progress: Callable[..., None]) -> None:
        self._worker = worker
        self._progress = progress
        self._last = ""

    @property
    def cancelled(self) -> bool:
        """True once the user wants an end."""
        return self._worker.cancelled

    def seen(self, what: str) -> None:
        """Tell what is new."""
        if what != self._last:
            self._last = what
            self._progress(what)


class Comparison:
    """A comparison; `results` has what there is, at any time and after any end."""

    def __init__(self, request: Request, saved: Callable[[Results], None]) -> None:
        """Take `saved`, which is called with the results after each run."""
        self.request = request
        self._saved = saved
        self._absent: dict[str, str] = {}
        self.results = Results(
            began=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            seed=request.seed,
            rounds=request.rounds,
            slice_seconds=request.slice_seconds,
            baseline=request.baseline,
            against_itself=request.against_itself,
            state=State.PARTIAL,
            why="it has not ended",
            vmctl=__version__,
            workloads=tuple(workload.name for workload in request.workloads),
        )

    def events(self) -> Iterator[Event]:
        """Carry it out. Closing the iterator ends the run that goes on, and keeps the others."""
        begun = time.monotonic()
        try:
            yield from crews.carry_out([""], {}, lambda _name, worker: self._work(worker))
            self.results.state, self.results.why = State.COMPLETE, ""
        except errors.VmctlError as problem:
            self.results.why = problem.message
            raise
        except GeneratorExit:
            self.results.why = "it was interrupted"
            raise
        finally:
            self.results.seconds = round(time.monotonic() - begun, 1)

    def _work(self, worker: Worker) -> None:
        layout = Layout.default()
        home.opened(layout)
        token = os.urandom(4).hex()
        with (
            locks.hold(layout.lock("lab", "compare"), None, "The lab"),
            _workshop(layout, token) as directory,
            contextlib.ExitStack() as opened,
        ):
            with worker.step("prepare", patient=True) as progress:
                trials = self._prepare(opened, worker, layout, directory, progress)
            for trial in trials:
                self._remember(trial.contender)
            self._rounds(trials, worker)

    def _prepare(
        self,
        opened: contextlib.ExitStack,
        worker: Worker,
        layout: Layout,
        directory: pathlib.Path,
        progress: Callable[..., None],
    ) -> list[Trial]:
        """Return the contenders, ready to run; all that they share is in `opened`."""
        request = self.request
        token = directory.name
        entries = self._entries(token)
        if self._build(entries, layout, progress):
            entries = self._entries(token)
        connection = None
        if any(entry.machine is not None for entry in entries.accepted):
            connection = opened.enter_context(connections.opened(request.uri, layout))
        self.results.contenders = list(entries.refused)
        for refused in entries.refused:
            worker.note("info", f"{refused.name} is left out: {refused.why}", refused.hint)
        self._describe(layout, connection)
        bench = self._bench(opened, entries, directory, connection, layout)
        trials: list[Trial] = []
        shape = next((entry.machine for entry in entries.accepted if entry.machine), None)
        for entry in entries.accepted:
            try:
                trials.append(field.ready(entry, bench, shape))
            except errors.HostError as problem:
                if request.named:
                    raise
                refused = Contender(
                    name=entry.name,
                    mode=entry.mode,
                    state=State.REFUSED,
                    why=problem.message,
                    hint=problem.hint,
                )
                self.results.contenders.append(refused)
                worker.note("info", f"{entry.name} is left out: {problem.message}", problem.hint)
        self._choose_baseline(trials)
        return trials

    def _entries(self, token: str) -> Entries:
        request = self.request
        entries = field.enter(
            request.path, request.modes, uri=request.uri, named=request.named, token=token
        )
        return field.twins(entries) if request.against_itself else entries

    def _build(self, entries: Entries, layout: Layout, progress: Callable[..., None]) -> bool:
        """Build the image where somebody needs it and it is absent; tell whether it was built."""
        needed = any(entry.mode != direct.MODE for entry in entries.accepted)
        machine = next((entry.machine for entry in entries.accepted if entry.machine), None)
        name = _image(machine).name if machine is not None else _DEFAULT_IMAGE
        if not needed or images.find(layout, name).present:
            return False
        build.ensure(layout, name, Deadline.after(_BUILD_SECONDS), progress)
        return True

    def _describe(self, layout: Layout, connection: Connection | None) -> None:
        facts = gather.gather(Deadline.after(_FACTS_SECONDS))
        found = storage.examine(layout.home)
        kvm = verdict.kvm_verdict(facts, system=connection is None or not connection.session)
        self.results.host = lab_host.describe(facts, kvm, found, connection)

    def _bench(
        self,
        opened: contextlib.ExitStack,
        entries: Entries,
        directory: pathlib.Path,
        connection: Connection | None,
        layout: Layout,
    ) -> Bench:
        probe = program.compile_into(directory)
        self.results.probe = dict(probe.as_dict())
        netns = ""
        if any(entry.mode == container.MODE for entry in entries.accepted):
            name = container.network_name(directory.name)
            netns = opened.enter_context(container.network(name))
        addresses = [peers.LOOPBACK, *([container.HOST_ADDRESS] if netns else [])]
        chosen = tools.chosen(self.results.workloads)
        self._absent = tools.absent(chosen)
        chosen = [tool for tool in chosen if tool.workload not in self._absent]
        port, ports = peers.start(opened, probe, chosen, addresses)
        wanted = Job(
            workloads=tuple(catalog.probed(self.request.workloads)),
            seconds=self.request.slice_seconds,
            slices=self.request.slices,
            tools=tuple(chosen),
            port=port,
            ports=ports,
        )
        wanted, disk = job.spread(wanted, probe, directory)
        machines = [entry.machine for entry in entries.accepted if entry.machine]
        initrd = directory / "initrd"
        image = _image(machines[0]) if machines else images.find(layout, _DEFAULT_IMAGE)
        if image.present:
            job.write_initrd(initrd, image)
            self.results.machine = _described(image, machines[0] if machines else None)
        if machines:
            job.hand_over(machines[0].qemu_owner, disk, initrd)
        return Bench(
            directory=directory,
            token=directory.name,
            connection=connection,
            storage=storage.examine(layout.home),
            job=wanted,
            disk=disk,
            initrd=initrd,
            image=image if image.present else None,
            peer=peers.LOOPBACK,
            netns=netns,
        )

    def _choose_baseline(self, trials: list[Trial]) -> None:
        """Take the baseline that was asked for, else the least isolated that there is."""
        names = [trial.contender.name for trial in trials]
        if not names:
            raise errors.HostError(
                "Nothing that was asked for can run here.", hint="See why: vmctl doctor"
            )
        wanted = self.request.baseline
        if wanted and wanted not in names and not self.request.against_itself:
            raise errors.UsageError(
                f"The baseline '{wanted}' does not take part.",
                hint=f"Take one of these: {', '.join(names)}",
            )
        order = (direct.MODE, container.MODE)
        self.results.baseline = wanted or next((each for each in order if each in names), names[0])

    def _remember(self, contender: Contender) -> None:
        """Put what is known of a contender into the results; later, more is known."""
        known = self.results.contenders
        for place, each in enumerate(known):
            if each.name == contender.name:
                known[place] = contender
                return
        known.append(contender)
        known.sort(key=lambda each: field.MODES.index(each.mode))

    def _rounds(self, trials: list[Trial], worker: Worker) -> None:
        chance = random.Random(self.request.seed)
        void: dict[str, int] = {}
        for number, order in schedule.interleaved(trials, self.request.rounds, chance):
            for place, trial in enumerate(order):
                name = trial.contender.name
                if void.get(name, 0) >= _GIVEN_UP_AFTER:
                    continue
                what = f"round {number} of {self.request.rounds}" if number else "warm-up"
                with worker.step(f"{what}: {name}", patient=True) as progress:
                    run = trial.run(number, place, _Voice(worker, progress))
                self._remember(trial.contender)
                self.results.runs.append(
                    dataclasses.replace(run, missing={**self._absent, **run.missing})
                )
                if run.state is State.VOID:
                    worker.note("warning", f"{name}: a run is void: {run.why}")
                    void[name] = void.get(name, 0) + 1
                else:
                    void[name] = 0
                self._saved(self.results)
        self.results.host["load_after"] = lab_host.load()


def _image(machine: object) -> Image:
    image = getattr(machine, "image", None)
    assert isinstance(image, Image)
    return image


def _described(image: Image, machine: object) -> dict[str, object]:
    shape = {
        "cpus": getattr(machine, "cpus", 1),
        "memory_bytes": getattr(machine, "memory", 0),
    }
    return {"image": image.name, "digest": image.digest, **shape}


@contextlib.contextmanager
def _workshop(layout: Layout, token: str) -> Iterator[pathlib.Path]:
    """Make the comparison's own directory, which is gone afterwards, as is what others left."""
    field.clear(layout.lab)
    directory = layout.lab / token
    files.make_directory(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
