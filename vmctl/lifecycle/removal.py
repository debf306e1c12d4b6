"""Removes a machine with all that was made for it, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vmctl import errors
from vmctl.deadline import TCG_PATIENCE, Deadline
from vmctl.hypervisor import domains, networks
from vmctl.lifecycle import steps
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine.model import Accel, Machine, NicKind
from vmctl.machine.observed import Observed
from vmctl.machine.state import State
from vmctl.machine.xml import network as network_xml
from vmctl.store import records

_SYNC_SECONDS = 10.0
"""How long a guest may take to write its kept disks out before the plug is pulled."""


def kept(machine: Machine | None) -> list[str]:
    """Return the names of the disks that outlive the machine."""
    return [disk.name for disk in machine.disks if disk.keep] if machine else []


def refuse_foreign(observed: Observed) -> None:
    """Raise ConflictError for a domain of others, NotFoundError where there is nothing."""
    name = observed.name
    if observed.current is not None and not observed.current.owned:
        raise errors.ConflictError(
            f"Domain '{name}' was not made by vmctl; it is left alone.",
            hint=f"Use virsh for it: virsh dominfo {name}",
        )
    if observed.current is None and not observed.files:
        raise errors.NotFoundError(f"There is no machine '{name}'.", hint="See all: vmctl ps --all")


def remove(site: Site, observed: Observed, worker: Worker, *, with_kept: bool = False) -> None:
    """Stop, undefine and delete a machine; the caller holds its lock.

    The intent is written first and removed last, so that a kill leaves something that the same
    command finishes. A guest whose disks stay is asked to stop before the plug is pulled. Of a
    machine that was adopted only the definition goes: disks, UEFI variables and TPM are others'.
    """
    refuse_foreign(observed)
    place = site.layout.machine(observed.name)
    machine = observed.current.machine if observed.current else None
    intent = records.intent(place)
    spared = kept(machine) if machine else [str(name) for name in intent.get("keep", [])]
    record = records.read(place)
    spared += [name for name in (record.kept if record else ()) if name not in spared]
    others = machine is not None and any(disk.external for disk in machine.disks)
    grace = others or (spared and not with_kept)
    if machine is not None and grace and observed.state is State.RUNNING:
        # Before the intent: whoever interrupts this has lost nothing yet.
        with worker.step("stop"):
            _let_write(site, machine, worker)
    records.begin(place, "down", keep=spared)
    with worker.step("remove"):
        _undefine(site, observed)
        stays = frozenset() if with_kept else frozenset(spared)
        if stays:
            from vmctl.lifecycle import taking

            taking.clean_kept(place, stays)
        steps.remove_files(site, observed.name, kept=stays)
        _leave_networks(site)


def _let_write(site: Site, machine: Machine, worker: Worker) -> None:
    """Ask a guest to stop, so that its kept disks are whole; it has a while, not for ever."""
    patience = TCG_PATIENCE if machine.accel is Accel.TCG else 1
    deadline = Deadline.after(_SYNC_SECONDS * patience)
    domain = domains.get(site.connection, machine.name)
    if not domains.shut_down(domain, deadline, lambda: worker.cancelled):
        worker.note("warning", "the guest did not stop by itself; its kept disks may need fsck")


def _undefine(site: Site, observed: Observed) -> None:
    domain = domains.find(site.connection, observed.name)
    if domain is not None:
        domains.force_off(domain)
        current = observed.current
        domains.undefine(domain, others=current is not None and current.machine.adopted)
    for nic in observed.current.machine.nics if observed.current else ():
        if nic.kind is not NicKind.NETWORK:
            networks.release(site.connection, nic)


def _leave_networks(site: Site) -> None:
    """Remove networks of vmctl's own that no machine of the store wants any more."""
    for network in () if site.connection.session else network_xml.NAMES.values():
        with steps.network_lock(site, network):
            if network not in set(records.networks(site.layout, site.connection.uri)):
                networks.remove_unused(site.connection, network)


@contextlib.contextmanager
def nothing_left_if_refused(site: Site, observed: Observed) -> Iterator[None]:
    """Take the intent back when the block is refused: nothing was made yet."""
    try:
        yield
    except errors.VmctlError:
        place = site.layout.machine(observed.name)
        records.finish(place)
        with contextlib.suppress(OSError):
            place.directory.rmdir()
        raise


def clear_interrupted_creation(site: Site, machine: Machine, observed: Observed) -> None:
    """Remove files of a creation that was killed and meant another machine than this one.

    Nothing ever ran on them: the domain did not exist yet. A machine that was recorded once has
    run, and its disks are never cleared here, whatever became of its domain.
    """
    place = site.layout.machine(machine.name)
    intent = records.intent(place)
    half_made = observed.current is None and records.read(place) is None
    if half_made and intent.get("verb") == "up" and intent.get("digest") != machine.digest:
        spared = {str(name) for name in intent.get("keep", [])} | set(kept(machine))
        steps.remove_files(site, machine.name, kept=frozenset(spared))
