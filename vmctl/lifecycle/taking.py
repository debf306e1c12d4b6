"""Takes and erases a snapshot of one machine; the caller holds its lock."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Iterator

import vmctl.hypervisor.snapshots as monitor
from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.hypervisor import domains
from vmctl.images import internal
from vmctl.images.internal import Tag
from vmctl.lifecycle import access
from vmctl.lifecycle.steps import Site
from vmctl.machine import snapshots
from vmctl.machine.model import Machine
from vmctl.machine.observed import Observed
from vmctl.machine.snapshots import Carrier
from vmctl.store import files, records
from vmctl.store import snapshots as trees
from vmctl.store.layout import MachineFiles
from vmctl.store.snapshots import Detail, Kind, Snapshot

SECONDS = 900.0
"""How long QEMU may take for the memory of a large guest; nothing can interrupt it."""

_KEPT_FILES = ("spec", "payload", "inside")


def machine_of(observed: Observed) -> Machine:
    """Return the machine as it runs, else as it is defined."""
    assert observed.current is not None
    return observed.running or observed.current.machine


def carriers(site: Site, machine: Machine) -> tuple[Carrier, ...]:
    """Return the images that hold the machine's snapshots."""
    return snapshots.carriers(machine, site.layout.machine(machine.name))


def tags(site: Site, machine: Machine, *, active: bool) -> dict[str, dict[str, Tag]]:
    """Return, for each carrier by its name, the snapshots that are in it."""
    deadline = Deadline.after(SECONDS)
    there = carriers(site, machine)
    if not active:
        return {
            each.name: internal.tags(each.path, deadline) if os.path.exists(each.path) else {}
            for each in there
        }
    with _nodes(site, machine, missing_ok=True):
        found = monitor.tags(domains.get(site.connection, machine.name))
    return {each.name: internal.parsed(found.get(each.path, [])) for each in there}


@contextlib.contextmanager
def _nodes(site: Site, machine: Machine, *, missing_ok: bool = False) -> Iterator[list[str]]:
    """Give QEMU's names of the carriers for the block. Raises ConflictError for one it lacks."""
    domain = domains.get(site.connection, machine.name)
    place = site.layout.machine(machine.name)
    if not machine.disks and (place.vmstate.exists() or not missing_ok):
        _make_vmstate(place, machine)
        monitor.attach(domain, str(place.vmstate))
    try:
        known = monitor.nodes(domain)
        there = carriers(site, machine)
        lacking = [each for each in there if each.path not in known]
        if lacking and not missing_ok:
            raise errors.ConflictError(
                f"Disk '{lacking[0].name}' of machine '{machine.name}' is not the file "
                f"'{lacking[0].path}' any more: other hands changed it.",
                hint=f"See what it is: virsh domblklist {machine.name}",
            )
        yield [known[each.path] for each in there if each.path in known]
    finally:
        if not machine.disks:
            monitor.detach(domain)


def _make_vmstate(place: MachineFiles, machine: Machine) -> None:
    if not place.vmstate.exists():
        internal.create_empty(place.vmstate, Deadline.after(SECONDS))
    give_to_qemu(place.vmstate, machine)


def give_to_qemu(path: os.PathLike[str], machine: Machine) -> None:
    """Let QEMU's own account have a file, where vmctl owns the files of the machine."""
    if machine.qemu_owner:
        uid, gid = (int(part) for part in machine.qemu_owner.replace("+", "").split(":"))
        os.chown(path, uid, gid, follow_symlinks=False)


def take(site: Site, observed: Observed, wanted: Snapshot) -> Snapshot:
    """Take a snapshot: first what describes it, then the data, then its place in the tree.

    A kill in between leaves something that `settle` clears, as long as the intent is there.
    """
    machine = machine_of(observed)
    place = site.layout.machine(machine.name)
    trees.write_detail(place, wanted.name, detail(site, observed))
    if wanted.kind is not Kind.MEMORY and machine.nvram and os.path.exists(machine.nvram):
        with open(machine.nvram, "rb") as stream:
            files.write(place.snapshot_nvram(wanted.name), stream.read())
    _take_data(site, machine, wanted)
    size = 0
    if wanted.kind is Kind.MEMORY:
        found = tags(site, machine, active=True)
        size = max(each[wanted.name].memory for each in found.values() if wanted.name in each)
    taken = dataclasses.replace(wanted, created=time.time(), memory=size)
    trees.write(place, trees.read(place).added(taken))
    return taken


def _take_data(site: Site, machine: Machine, wanted: Snapshot) -> None:
    deadline = Deadline.after(SECONDS)
    domain = domains.get(site.connection, machine.name)
    if wanted.kind is Kind.OFFLINE:
        for carrier in carriers(site, machine):
            internal.mend(carrier.path, deadline)
            internal.take(carrier.path, wanted.name, deadline)
        return
    with _nodes(site, machine) as nodes:
        if wanted.kind is Kind.MEMORY:
            monitor.save(domain, wanted.name, nodes, deadline)
        else:
            monitor.take_disks(domain, wanted.name, nodes)


def detail(site: Site, observed: Observed) -> Detail:
    """Return what a machine is now, besides its disks and its memory."""
    name = observed.name
    place = site.layout.machine(name)
    domain = domains.get(site.connection, name)
    record = records.read(place)
    kept = {}
    for kind in _KEPT_FILES:
        with contextlib.suppress(FileNotFoundError):
            kept[kind] = getattr(place, kind).read_bytes().decode("utf-8", "surrogateescape")
    active = observed.state.active
    live = domains.live_xml(site.connection, name) if active else ""
    return Detail(
        xml=monitor.definition(domain),
        hardware=snapshots.hardware(live) if live else "",
        agent=bool(live) and snapshots.agent_connected(live),
        record=dataclasses.asdict(record) if record else {},
        files=kept,
        run=access.run_of(site.connection, observed, record) if active else "",
    )


def hardware(site: Site, name: str) -> str:
    """Return the digest of what QEMU runs of a machine."""
    return snapshots.hardware(domains.live_xml(site.connection, name))


def load(site: Site, machine: Machine, name: str) -> None:
    """Put disks and memory of a snapshot back into the machine's QEMU."""
    domain = domains.get(site.connection, machine.name)
    with _nodes(site, machine) as nodes:
        monitor.load(domain, name, nodes, Deadline.after(SECONDS))


def apply(site: Site, machine: Machine, name: str) -> None:
    """Give the disks of a stopped machine the content of a snapshot."""
    deadline = Deadline.after(SECONDS)
    for carrier in carriers(site, machine):
        internal.mend(carrier.path, deadline)
        internal.apply(carrier.path, name, deadline)


def rename_run(place: MachineFiles, before: str, after: str) -> None:
    """Have what was done inside the guest be of this run, which goes on from that one."""
    if before and after and place.inside.exists():
        text = place.inside.read_text().replace(f'"{before}"', f'"{after}"')
        files.write(place.inside, text.encode())


def clean_kept(place: MachineFiles, disks: Iterable[str]) -> None:
    """Remove a machine's snapshots from the disks that outlive it."""
    deadline = Deadline.after(SECONDS)
    names = trees.glance(place).names
    for path in map(place.disk, disks) if names else ():
        if path.exists():
            internal.mend(str(path), deadline)
            for name in names:
                internal.delete(str(path), name, deadline)


def erase(site: Site, machine: Machine, name: str, *, active: bool) -> None:
    """Remove a snapshot's data from every carrier that has it; fine where it is gone."""
    deadline = Deadline.after(SECONDS)
    if active:
        domain = domains.get(site.connection, machine.name)
        with monitor.standing_still(domain), _nodes(site, machine, missing_ok=True) as nodes:
            if nodes:
                monitor.delete(domain, name, nodes, deadline)
        return
    for carrier in carriers(site, machine):
        if os.path.exists(carrier.path):
            internal.mend(carrier.path, deadline)
            internal.delete(carrier.path, name, deadline)


def forget(site: Site, machine: Machine, name: str, *, active: bool) -> None:
    """Remove a snapshot: the data, its place in the tree, what describes it."""
    place = site.layout.machine(machine.name)
    erase(site, machine, name, active=active)
    tree = trees.read(place).without(name)
    if tree.snapshots:
        trees.write(place, tree)
    else:
        files.remove(place.snapshots)
        if not active and not machine.disks:
            files.remove(place.vmstate)
    trees.forget_files(place, name)
