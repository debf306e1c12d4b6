"""A virtual machine of one mode as a contender: started, measured and gone in each run."""

from __future__ import annotations

import dataclasses
import re
import time

from vmctl import errors
from vmctl.deadline import TCG_PATIENCE, Deadline
from vmctl.guest import console_log
from vmctl.hypervisor import domains, monitor, transient
from vmctl.hypervisor.connection import Connection
from vmctl.images import qcow2
from vmctl.lab import domain as lab_domain
from vmctl.lab import footprint, job
from vmctl.lab.job import Job
from vmctl.lab.results import Contender, Run
from vmctl.lab.trial import PATIENCE, Sheet, Voice
from vmctl.machine.model import Accel, Machine
from vmctl.store import files

_POLL = 0.005
_STATE_EVERY = 100
"""Polls of the files for each question to libvirt."""

_DIED = re.compile(r"[^\n]*: [0-9a-f]{4} \[#\d+\][^\n]*")
"""How the kernel says that it went wrong itself (die in arch/x86/kernel/dumpstack.c)."""

_USER_SPACE = re.compile(r"^(vmctl-tiny: user space|systemd\[1\]: |Welcome to )", re.MULTILINE)
_MIB = 1 << 20
_OVERTAKEN = "libvirt's call returned after the guest's kernel had begun: the host is busy"


@dataclasses.dataclass(slots=True)
class _Marks:
    """Moments of the host's monotonic clock; None for what has not come yet."""

    called: float
    running: float | None = None
    user_space: float | None = None
    ready: float | None = None
    answered: float | None = None


class Guest:
    """A machine that is run again and again, each time from power-on."""

    def __init__(
        self,
        name: str,
        connection: Connection,
        machine: Machine,
        places: lab_domain.Places,
        wanted: Job,
    ) -> None:
        self._name = name
        self._connection = connection
        self._machine = machine
        self._places = places
        self._job = wanted
        self._xml = lab_domain.write(machine, places)
        self._argv: tuple[str, ...] = ()
        self._topology: dict[str, object] = {
            "cpus": machine.cpus,
            "sockets": 1,
            "cores": machine.cpus_max,
            "threads": 1,
            "pinned_to": [],
        }
        self._cgroups: tuple[str, ...] = ()

    @property
    def contender(self) -> Contender:
        """Who it is; with QEMU's command line after the first run."""
        return Contender(
            name=self._name,
            mode=self._machine.mode.value,
            accel=self._machine.accel.value,
            devices=self._machine.devices.value,
            isolation=_isolation(self._machine, self._cgroups),
            topology=self._topology,
            xml=self._xml,
            argv=self._argv,
        )

    def run(self, number: int, place: int, voice: Voice) -> Run:
        """Boot it, let it work, read back what really ran it, and pull the plug."""
        sheet = Sheet(self._name, number, place)
        self._make_files()
        marks = _Marks(time.monotonic())
        try:
            transient.start(self._connection, self._xml)
            marks.running = time.monotonic()
            why = self._watch(sheet, marks, voice)
            self._prove(sheet)
        except errors.HypervisorError as problem:
            return sheet.finished(f"libvirt: {problem.message}")
        finally:
            self._end()
        self._note_marks(sheet, marks)
        return sheet.finished(
            why or lab_domain.objection(self._machine, sheet.proof, sheet.report.facts)
        )

    def _make_files(self) -> None:
        """Make what each run begins with anew: empty logs, and the system's disk as it was."""
        for file in (self._places.answer, self._places.console):
            files.write(file, b"")
            job.hand_over(self._machine.qemu_owner, file)
        for disk in self._machine.disks:
            if disk.base:
                self._places.root.unlink(missing_ok=True)
                qcow2.create_overlay(self._places.root, disk.base, disk.base_format, disk.size)
                job.hand_over(self._machine.qemu_owner, self._places.root)

    def _watch(self, sheet: Sheet, marks: _Marks, voice: Voice) -> str:
        """Wait for the end of the job; return why there is none, or nothing."""
        answer = console_log.Follower(self._places.answer)
        console = console_log.Follower(self._places.console)
        patience = TCG_PATIENCE if self._machine.accel is Accel.TCG else 1
        deadline = Deadline.after(
            PATIENCE * patience + self._machine.ready.timeout + 3 * self._job.length
        )
        ready = re.compile(self._machine.ready.pattern or "^$a", re.MULTILINE)
        said = ""
        polls = 0
        while not sheet.report.ended:
            said += console.read().decode("utf-8", "replace").replace("\r", "")
            sheet.report.feed(answer.read().decode("utf-8", "replace"))
            now = time.monotonic()
            if marks.user_space is None and _USER_SPACE.search(said):
                marks.user_space = now
            if marks.ready is None and ready.search(said):
                marks.ready = now
            if marks.answered is None and sheet.report.clock is not None:
                marks.answered = now
            voice.seen(sheet.report.last or _last_line(said))
            if voice.cancelled:
                raise errors.InterruptError("Interrupted.")
            polls += 1
            why = self._trouble(said, deadline, ask=polls % _STATE_EVERY == 0)
            if why:
                return why
            time.sleep(_POLL)
        return ""

    def _trouble(self, said: str, deadline: Deadline, *, ask: bool) -> str:
        panic = console_log.PANIC.search(said)
        if panic is not None:
            return f"the guest panicked: {panic[0]}"
        why = died(said)
        if why:
            return why
        if deadline.passed:
            last = _last_line(said) or "nothing"
            return f"the job did not end within {deadline.seconds:.0f} s; last seen: {last!r}"
        if ask:
            found = domains.find(self._connection, self._machine.name)
            if found is None or not domains.state(found)[0].active:
                return "the guest ended before its job"
        return ""

    def _prove(self, sheet: Sheet) -> None:
        """Read back what runs it, while it runs: a silent fallback is the commonest false row."""
        found = domains.find(self._connection, self._machine.name)
        if found is None:
            return
        live = domains.live_xml(self._connection, self._machine.name)
        sheet.proof = lab_domain.proof(live, kvm_enabled=monitor.kvm_enabled(found))
        seen = footprint.of_guest(self._machine.name, self._machine.memory)
        if seen is None:
            reason = "the QEMU process could not be looked at"
            sheet.missing |= {"host-cpu": reason, "host-memory": reason}
            return
        sheet.note("host-cpu", seen.cpu_seconds, "s")
        if seen.beyond_guest is None:
            sheet.missing["host-memory"] = "only root may look into QEMU's memory map"
        else:
            sheet.note("host-memory", seen.beyond_guest / _MIB, "MiB")
        sheet.proof["resident_bytes"] = seen.resident
        sheet.proof["qemu_cpus"] = seen.cpus
        self._argv = seen.argv
        self._cgroups = seen.cgroups
        self._topology["threads_may_run_on"] = seen.cpus

    def _end(self) -> None:
        found = domains.find(self._connection, self._machine.name)
        if found is not None:
            domains.force_off(found)

    def _note_marks(self, sheet: Sheet, marks: _Marks) -> None:
        """Turn the moments into spans.

        When the kernel's clock began to run is known from what it showed at the job's first line.
        """
        clock = sheet.report.clock
        if marks.running is None or marks.answered is None or clock is None:
            return
        began = marks.answered - clock
        sheet.note("start-vmm", marks.running - marks.called, "s")
        if began > marks.running:
            sheet.note("start-firmware", began - marks.running, "s")
        else:
            sheet.missing["start-firmware"] = _OVERTAKEN
        sheet.note("start-total", marks.answered - marks.called, "s")
        if marks.user_space is not None:
            sheet.note("start-kernel", marks.user_space - began, "s")
            ready = marks.ready if marks.ready is not None else marks.answered
            sheet.note("start-user-space", ready - marks.user_space, "s")


def died(said: str) -> str:
    """Return what a console tells of a kernel that went wrong and may go on or not, or nothing.

    QEMU's emulation of AMD-V does that to a guest now and then; nothing more comes of it then.
    """
    found = _DIED.search(said)
    return f"the guest's kernel failed: {found[0].strip()}" if found is not None else ""


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said[-400:].split("\n") if line.strip()]
    return lines[-1][:80] if lines else ""


def _isolation(machine: Machine, cgroups: tuple[str, ...]) -> tuple[str, ...]:
    """Return what keeps the guest apart."""
    if machine.accel is Accel.KVM:
        boundary = (
            "its own kernel in rings 0 and 3 of guest mode (VT-x non-root, AMD-V guest); "
            "what is sensitive exits to KVM, in the host's kernel"
        )
        memory = "memory behind nested page tables that only the host can change"
    else:
        boundary = (
            "its own kernel, both of its rings translated: all of it is ring 3 code of one QEMU "
            "process; there are no exits, only function calls. TCG is no security boundary"
        )
        memory = "memory behind QEMU's software TLB"
    devices = "virtio devices" if machine.virtio else "emulated devices (AHCI, e1000e)"
    lines = [boundary, memory, f"{devices}, served by the QEMU process"]
    controllers = sorted({word for line in cgroups for word in line.split(":")[1].split(",")})
    named = ", ".join(word for word in controllers if word and not word.startswith("name="))
    if named:
        lines.append(f"the QEMU process: cgroup controllers {named}")
    return tuple(lines)
