"""One run of one contender: what all kinds of contenders have in common."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.lab.job import Job
from vmctl.lab.results import Contender, Run, Sample, State
from vmctl.lab.stream import Report

PATIENCE = 60.0
"""Seconds beyond the probe's own that a run may take without TCG; only a guard against hanging."""

_POLL = 0.002
_KEPT_COMPLAINT = 300


class Voice(Protocol):
    """What a run is told and tells: whether to end, and how far it is."""

    @property
    def cancelled(self) -> bool:
        """True once the user wants an end."""

    def seen(self, what: str) -> None:
        """Take in what was seen last."""


class Trial(Protocol):
    """Something that can be run again and again."""

    @property
    def contender(self) -> Contender:
        """Who it is; complete after the first run."""

    def run(self, number: int, place: int, voice: Voice) -> Run:
        """Start it, measure, end it; nothing is left. Raises InterruptError when cancelled."""


def _stolen() -> float:
    """Return the seconds of all processors that were given to other machines (proc(5), steal)."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/stat") as lines:
        return int(lines.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
    return 0.0


@dataclasses.dataclass(slots=True)
class Sheet:
    """A run while it happens."""

    contender: str
    round: int
    place: int
    began: str = dataclasses.field(
        default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    )
    load: float = dataclasses.field(default_factory=lambda: round(os.getloadavg()[0], 2))
    report: Report = dataclasses.field(default_factory=Report)
    own: list[Sample] = dataclasses.field(default_factory=list)
    stolen: float = dataclasses.field(default_factory=_stolen)
    proof: dict[str, Any] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)

    def note(self, workload: str, value: float, unit: str) -> None:
        """Add a sample that was taken from outside."""
        if value > 0:
            self.own.append(Sample(workload=workload, value=round(value, 6), unit=unit))

    def finished(self, why: str = "") -> Run:
        """Return the run: void where there is a reason."""
        return Run(
            contender=self.contender,
            round=self.round,
            place=self.place,
            state=State.VOID if why else State.OK,
            why=why,
            began=self.began,
            load=self.load,
            samples=(*self.own, *self.report.samples),
            missing={**self.missing, **self.report.missing},
            facts=self.report.facts,
            # Processor time that the host's own hypervisor gave to others meanwhile.
            proof={**self.proof, "host_steal_seconds": round(_stolen() - self.stolen, 2)},
        )


def follow(
    argv: Sequence[str], sheet: Sheet, job: Job, voice: Voice, killed: Callable[[], None]
) -> str:
    """Run a program that is the probe, or becomes it; return why the run is void, or nothing.

    `killed` ends what the program itself would leave behind. CPU time is that of all children that
    have ended.
    """
    deadline = Deadline.after(PATIENCE + 3 * job.length)
    before = _children_cpu()
    began = time.monotonic()
    with process.beside(argv) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for stream in (child.stdout, child.stderr):
            os.set_blocking(stream.fileno(), False)
        complaint = b""
        try:
            while True:
                ended = child.poll() is not None
                sheet.report.feed((child.stdout.read() or b"").decode("utf-8", "replace"))
                complaint += child.stderr.read() or b""
                _note_start(sheet, time.monotonic() - began)
                voice.seen(sheet.report.last)
                if ended:
                    break
                if voice.cancelled:
                    raise errors.InterruptError("Interrupted.")
                if deadline.passed:
                    return f"it did not end within {deadline.seconds:.0f} s"
                time.sleep(_POLL)
        finally:
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
            with contextlib.suppress(errors.VmctlError):
                killed()
    sheet.note("host-cpu", _children_cpu() - before, "s")
    if child.returncode != 0 or not sheet.report.ended:
        said = " ".join(complaint.decode("utf-8", "replace").split())[-_KEPT_COMPLAINT:]
        return f"it ended with status {child.returncode}: {said or 'it said nothing'}"
    return ""


def _note_start(sheet: Sheet, seconds: float) -> None:
    if sheet.report.clock is not None and not sheet.own:
        sheet.note("start-vmm", seconds, "s")
        sheet.note("start-total", seconds, "s")


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
