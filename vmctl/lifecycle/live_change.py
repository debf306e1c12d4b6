"""Changes a machine while it runs: what libvirt shows of it is compared with what is wanted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from vmctl import errors, sizes
from vmctl.deadline import Deadline
from vmctl.hypervisor import domains, live, networks
from vmctl.lifecycle import backup_marks
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine import change, compare, limits
from vmctl.machine.compare import Difference
from vmctl.machine.effects import Effect
from vmctl.machine.model import Accel, Disk, Machine, Nic
from vmctl.machine.xml import device, metadata
from vmctl.machine.xml import domain as domain_xml
from vmctl.store import records

_SECONDS = 10.0
"""How long a guest may take to let go of something: it needs tenths of a second."""

_TCG_PATIENCE = 3
"""Under emulation; a guest that does not listen at all is not worth the usual factor of ten."""

_POLL = 0.2
_UNFINISHED = "unfinished"
"""What stands for a digest in a running domain that is not yet as it was defined."""

_BALLOON_SLACK = 1 << 20
"""Bytes: what a balloon may differ from what it was asked for."""


def carry_out(site: Site, wanted: Machine, spared: frozenset[str], worker: Worker) -> None:
    """Change a running machine as far as that is possible at once; the caller holds its lock.

    `spared` are the places that stay as they are. Each change is a step of its own, and one that
    fails keeps no other from being made; then the first failure is raised, and the domain says of
    itself that it is not yet as it was defined.
    """
    work = _Work(site, wanted, worker)
    failures: list[errors.VmctlError] = []
    for difference in work.ordered(spared):
        try:
            work.carry(difference)
        except errors.InterruptError:
            raise
        except errors.VmctlError as problem:
            failures.append(_named(problem, difference, wanted))
    work.note(finished=not failures)
    if failures:
        first = failures[0]
        others = (f"also: {problem.message}" for problem in failures[1:])
        first.details = "\n".join(text for text in (first.details, *others) if text)
        raise first


def grow_disks(site: Site, wanted: Machine, worker: Worker) -> None:
    """Give the disks of a running machine their new sizes; to be called before it is defined so.

    A definition never promises more than the image has: a machine that starts after a kill would
    seem to have grown. The caller holds its lock.
    """
    work = _Work(site, wanted, worker)
    backup_marks.drop_broken(site, wanted)
    for difference in work.ordered(frozenset()):
        if difference.grows:
            try:
                work.carry(difference)
            except errors.InterruptError:
                raise
            except errors.VmctlError as problem:
                problem.hint = problem.hint or "Nothing else was changed: try again."
                raise _named(problem, difference, wanted) from None


def _named(
    problem: errors.VmctlError, difference: Difference, wanted: Machine
) -> errors.VmctlError:
    """Say of a failure which change it was."""
    problem.message = f"Machine '{wanted.name}' runs on without a change ({difference}): " + (
        problem.message[:1].lower() + problem.message[1:]
    )
    problem.args = (problem.message,)
    problem.hint = problem.hint or (
        "It is defined and takes hold at the next start; vmctl up tries again before that."
    )
    return problem


class _Work:
    """One machine while it is being changed.

    `running` is what it is by now; that is written into the running domain's metadata after each
    change, so that a kill leaves nothing but the truth.
    """

    def __init__(self, site: Site, wanted: Machine, worker: Worker) -> None:
        self.site = site
        self.wanted = wanted
        self.worker = worker
        self.domain = domains.get(site.connection, wanted.name)
        read = domain_xml.read(self._xml())
        self.ports = read.spare_ports
        self.running = self._with_real_sizes(read.machine)
        patience = _TCG_PATIENCE if wanted.accel is Accel.TCG else 1
        self.seconds = _SECONDS * patience
        self.plugged: set[str] = set()

    def _xml(self) -> str:
        return domains.live_xml(self.site.connection, self.wanted.name)

    def _now(self) -> device.Live:
        return device.Live(self._xml())

    def _with_real_sizes(self, running: Machine) -> Machine:
        """Ask QEMU itself how large the disks are: nothing may ever make one smaller."""
        now = self._now()
        disks = tuple(
            disk
            if disk.external or not now.target(disk.name)
            else dataclasses.replace(disk, size=self._real_size(disk, now))
            for disk in running.disks
        )
        return dataclasses.replace(running, disks=disks)

    def _real_size(self, disk: Disk, now: device.Live) -> int:
        found = live.capacity(self.domain, now.target(disk.name))
        wanted = {each.name: each.size for each in self.wanted.disks}.get(disk.name, 0)
        # An image has whole sectors; a disk that other hands made larger is large enough.
        return wanted if found >= wanted > 0 else found

    def ordered(self, spared: frozenset[str]) -> list[Difference]:
        """Return what to do: first what frees a port or a drive."""
        there = change.within(compare.differences(self.running, self.wanted), self.ports)
        todo = [
            each
            for each in there
            if (each.effect is Effect.NOW or each.grows) and each.path not in spared
        ]
        return sorted(todo, key=lambda each: not (each.item and not each.after))

    def carry(self, difference: Difference) -> None:
        """Make one change, as a step if it reaches the machine, and note it."""
        action = self._action(difference)
        if action is not None:
            with self.worker.step(str(difference)):
                action(difference)
        self.running = compare.carried(self.running, difference, self.wanted)
        self._remember(difference)
        self.note(finished=False)

    def note(self, *, finished: bool) -> None:
        """Write into the running domain what it is by now, and whether that is all there is."""
        applied = self.wanted.digest if finished else _UNFINISHED
        live.note(self.domain, metadata.live_text(self.running, applied))

    def _remember(self, difference: Difference) -> None:
        """Have the store's record say what `ps` shows."""
        place = self.site.layout.machine(self.wanted.name)
        record = records.read(place)
        if record is not None and difference.field in ("cpus", "memory"):
            now = {difference.field: getattr(self.wanted, difference.field)}
            records.write(place, dataclasses.replace(record, **now))

    def _action(self, difference: Difference) -> Callable[[Difference], None] | None:
        """Return how a change is made; None for what the metadata alone has."""
        if difference.field == "limits":
            return self._limit
        if difference.field == "disks" and difference.part:
            return self._grow if difference.grows else None
        return {
            "memory": self._memory,
            "cpus": self._cpus,
            "description": self._description,
            "disks": self._disk,
            "nics": self._card,
            "cdroms": self._medium,
        }.get(difference.field)

    def _until(self, reached: Callable[[], bool]) -> bool:
        """Wait for the guest; tells whether it did what it was asked for."""
        deadline = Deadline.after(self.seconds)
        while not reached():
            if deadline.passed:
                return False
            if self.worker.cancelled:
                raise errors.InterruptError("Interrupted; the guest was asked already.")
            deadline.pause(_POLL)
        return True

    def _machine(self) -> Machine:
        return domain_xml.read(self._xml()).machine

    def _memory(self, _difference: Difference) -> None:
        wanted = self.wanted.memory
        live.set_memory(self.domain, wanted)
        if not self._until(lambda: abs(self._machine().memory - wanted) <= _BALLOON_SLACK):
            raise errors.WaitTimeoutError(
                f"The guest was asked for {sizes.text(wanted)} and has "
                f"{sizes.text(self._machine().memory >> 20 << 20)} after {self.seconds:g} s.",
                hint="Its balloon driver gives back what the guest can spare; vmctl up asks again.",
            )

    def _cpus(self, _difference: Difference) -> None:
        wanted = self.wanted.cpus
        try:
            live.set_cpus(self.domain, wanted)
        except errors.HypervisorError:
            # Libvirt waits five seconds for the guest, which is not long under emulation.
            if wanted > self.running.cpus or not self._until(
                lambda: self._machine().cpus == wanted
            ):
                if wanted > self.running.cpus:
                    raise
                raise self._not_let_go(f"{self._machine().cpus - wanted} processor(s)") from None

    def _not_let_go(self, what: str) -> errors.VmctlError:
        return errors.WaitTimeoutError(
            f"The guest did not let go of {what} within {self.seconds:g} s.",
            hint="A guest that is still starting, or has no driver for it, does not listen. vmctl "
            f"up asks again; a restart does without asking: vmctl restart {self.wanted.name}",
        )

    def _description(self, _difference: Difference) -> None:
        live.describe(self.domain, self.wanted.description)

    def _grow(self, difference: Difference) -> None:
        target = self._now().target(difference.item)
        disk = next(each for each in self.wanted.disks if each.name == difference.item)
        if live.capacity(self.domain, target) < disk.size:
            live.grow_disk(self.domain, target, disk.size)
        if difference.effect is not Effect.NOW:
            self.worker.note(
                "info", f"disk '{disk.name}' has grown; its guest sees that when it starts again"
            )

    def _disk(self, difference: Difference) -> None:
        now = self._now()
        name = difference.item
        there = now.disk(name)
        if not difference.after:
            if there is not None:
                live.unplug(self.domain, device.text(there))
                if not self._until(lambda: self._now().disk(name) is None):
                    raise self._not_let_go(f"disk '{name}'")
            return
        if there is None:
            if not now.has_io_thread:
                live.add_io_thread(self.domain)
            live.plug(self.domain, now.new_disk(self._hybrid(), name))

    def _hybrid(self) -> Machine:
        """Return what runs with the wanted devices; which starts first is decided at a start."""
        return dataclasses.replace(
            self.running,
            disks=self.wanted.disks,
            nics=self.wanted.nics,
            limits=self.wanted.limits,
            boot_order=(),
        )

    def _card(self, difference: Difference) -> None:
        """Plug a card in, out, or anew where it goes somewhere else."""
        mac = difference.item
        if mac in self.plugged:
            return
        there = self._now().card(mac)
        if there is not None and (difference.part or not difference.after):
            live.unplug(self.domain, device.text(there))
            if not self._until(lambda: self._now().card(mac) is None):
                raise self._not_let_go(f"network card '{mac}'")
            self._release(mac)
            there = None
        if there is None and difference.after:
            live.plug(self.domain, self._now().new_card(self._hybrid(), mac))
        self.plugged.add(mac)

    def _release(self, mac: str) -> None:
        """Take back the fixed address of a card that went, unless it comes back to the network."""
        gone = _card_of(self.running, mac)
        stays = _card_of(self.wanted, mac)
        if gone is not None and (stays is None or stays.network != gone.network):
            networks.release(self.site.connection, gone)

    def _medium(self, difference: Difference) -> None:
        drive = self._now().drive(difference.before)
        if drive is not None:
            xml = device.with_medium(drive, self.running, difference.after)
            live.change(self.domain, xml)

    def _limit(self, difference: Difference) -> None:
        wanted, part = self.wanted.limits, difference.part
        now = self._now()
        if part == "cpu_shares":
            live.weigh_cpu(self.domain, wanted)
        elif part == "cpu_quota":
            live.limit_cpu(self.domain, wanted)
        elif part == "cpuset":
            live.bind_cpus(self.domain, limits.cpus_of(wanted.cpuset))
        elif part == "memory":
            live.limit_memory(self.domain, wanted)
        elif part == "io_weight":
            live.limit_io(self.domain, wanted)
        elif part == "net_rate":
            for nic in self.running.nics:
                live.limit_card(self.domain, nic.mac, wanted)
        else:
            for disk in self.running.disks:
                live.limit_disk(self.domain, now.target(disk.name), wanted)


def _card_of(machine: Machine, mac: str) -> Nic | None:
    return next((nic for nic in machine.nics if nic.mac == mac), None)
