"""Puts right what a killed snapshot command left: the old state or the new one, never half."""

from __future__ import annotations

from vmctl.deadline import Deadline
from vmctl.hypervisor import domains
from vmctl.hypervisor import snapshots as monitor
from vmctl.lifecycle import observe, taking
from vmctl.lifecycle.steps import Site
from vmctl.machine.observed import Observed
from vmctl.machine.state import State
from vmctl.store import records
from vmctl.store import snapshots as trees

TAKE = "snapshot"
DELETE = "snapshot-delete"
RESTORE = "restore"
BACKUP = "snapshot-backup"

_SECONDS = 60.0


def settle(site: Site, observed: Observed) -> Observed:
    """Finish or undo what was begun on a machine, and return what is there then.

    The caller holds the machine's lock. A restore is not undone: its own command finishes it.
    Raises VmctlError where QEMU or an image does not let it.
    """
    if observed.intent == BACKUP and observed.current is not None:
        from vmctl.lifecycle import backup_marks

        backup_marks.undo(site, observed.name, taking.machine_of(observed))
        return observe.observe(site.connection, site.layout, observed.name)
    if observed.intent not in (TAKE, DELETE) or observed.current is None:
        return observed
    place = site.layout.machine(observed.name)
    intent = records.intent(place)
    active = observed.state.active
    if active:
        domain = domains.get(site.connection, observed.name)
        monitor.finish_job(domain, Deadline.after(_SECONDS))
    name = str(intent.get("snapshot", ""))
    machine = taking.machine_of(observed)
    if observed.intent == DELETE or trees.read(place).find(name) is None:
        taking.forget(site, machine, name, active=active)
    let_go(site, observed.name, resume=bool(intent.get("resume")), thaw=bool(intent.get("thaw")))
    records.finish(place)
    return observe.observe(site.connection, site.layout, observed.name)


def let_go(site: Site, name: str, *, resume: bool, thaw: bool) -> None:
    """Let a guest go on that was held for a snapshot."""
    domain = domains.find(site.connection, name)
    if domain is None:
        return
    if resume and domains.state(domain)[0] is State.PAUSED:
        domains.resume(domain)
    if thaw and domains.state(domain)[0] is State.RUNNING:
        monitor.thaw(domain)
