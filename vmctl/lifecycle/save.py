"""Saves running machines to disk, memory and all, so that `start` lets them go on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence

from vmctl import errors, sizes
from vmctl.deadline import Deadline
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor import domains
from vmctl.hypervisor import snapshots as monitor
from vmctl.lifecycle import access, execute, observe, schedule, snapshots, taking
from vmctl.lifecycle.events import Event
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine import snapshots as rules
from vmctl.machine.observed import Observed
from vmctl.machine.state import State
from vmctl.store import files, records
from vmctl.store.layout import Layout

_CLOCK_SECONDS = 15.0
_STATES = "/var/lib/libvirt/qemu"
"""Where the system's libvirt puts saved memory (below the user's own directories otherwise)."""


def save(names: Sequence[str], uri: str | None) -> Iterator[Event]:
    """Save machines; nothing is touched if one of them is refused."""
    layout = Layout.default()
    with connections.opened(uri, layout) as connection:
        site = Site(connection, layout)
        for name in names:
            _require(snapshots.require(observe.observe(connection, layout, name)))

        def work(name: str, worker: Worker) -> None:
            with execute.locked(site, name) as observed:
                _require(snapshots.require(observed))
                if observed.state is not State.SAVED:
                    with worker.step("save"):
                        _save(site, observed)

        yield from schedule.carry_out(list(names), {}, work)


def _require(observed: Observed) -> None:
    """Raise ConflictError or UsageError for a machine that cannot be saved."""
    if observed.state is State.SAVED:
        return
    if observed.state not in (State.RUNNING, State.PAUSED):
        raise errors.ConflictError(
            f"Machine '{observed.name}' is {observed.state}: it has no memory to save.",
            hint=f"See its state: vmctl status {observed.name}",
        )
    machine = taking.machine_of(observed)
    blocked = rules.blockers(machine)
    if blocked:
        raise errors.UsageError(
            f"Machine '{machine.name}' cannot be saved: {blocked[0].why}.",
            hint=f"Stop it instead: vmctl stop {machine.name}",
        )
    if os.path.isdir(_STATES):
        room = os.statvfs(_STATES)
        if machine.memory > room.f_bavail * room.f_frsize:
            raise errors.HostError(
                f"The memory of '{machine.name}' may take {sizes.text(machine.memory)}, which "
                f"'{_STATES}' does not have.",
                hint=f"Free some disk space, or stop it: vmctl stop {machine.name}",
            )


def _save(site: Site, observed: Observed) -> None:
    """Have libvirt save it, and remember which run the memory belongs to."""
    name = observed.name
    place = site.layout.machine(name)
    record = records.read(place)
    run = access.run_of(site.connection, observed, record)
    agent = rules.agent_connected(domains.live_xml(site.connection, name))
    ready = bool(record and record.ready)
    files.write_json(place.saved, {"run": run, "ready": ready, "agent": agent})
    try:
        monitor.managed_save(domains.get(site.connection, name))
    except errors.VmctlError:
        files.remove(place.saved)
        raise


def go_on(site: Site, name: str) -> None:
    """Start a saved machine; it is the same run of the guest as before."""
    place = site.layout.machine(name)
    saved = files.read_json(place.saved) or {}
    domains.start(domains.get(site.connection, name))
    record = records.read(place)
    if record is not None:
        run = domains.get(site.connection, name).ID()
        ready = bool(saved.get("ready"))
        record = dataclasses.replace(record, boot_id=run, ready=ready)
        records.write(place, record)
        now = observe.observe(site.connection, site.layout, name)
        taking.rename_run(
            place, str(saved.get("run", "")), access.run_of(site.connection, now, record)
        )
    files.remove(place.saved)
    if saved.get("agent"):
        domain = domains.get(site.connection, name)
        monitor.set_clock(domain, Deadline.after(_CLOCK_SECONDS), lambda: False)
