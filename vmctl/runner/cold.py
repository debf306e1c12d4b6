"""A machine for one job, from nothing: made on an overlay, started, waited for, and gone again.

The domain is defined nowhere. Unless it was asked to outlive its vmctl, libvirt ends it with our
connection, however that ends; files are left then, which the next run or `vmctl gc` removes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib

from vmctl import errors, interruption
from vmctl.deadline import TCG_PATIENCE, Deadline
from vmctl.guest import signs, ssh
from vmctl.guest.ssh import Access
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor import domains, transient
from vmctl.lifecycle import (
    access,
    existing,
    first_boot,
    observe,
    provision,
    removal,
    schedule,
    sharing,
    steps,
    waiting,
)
from vmctl.lifecycle.provision import Provision
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine.model import Accel, Machine
from vmctl.machine.xml import domain as domain_xml
from vmctl.runner import nested, orphan
from vmctl.runner.timings import Stage, Timings
from vmctl.runner.wanted import Found
from vmctl.runner.watch import Watch
from vmctl.store import files, records
from vmctl.store.records import Record

_NOT_READY = (
    "Keep its whole console: --serial-log FILE; look into it afterwards: --keep-on-failure; "
    "wait longer: --set ready.timeout=10m"
)
_LOGIN_SECONDS = 60.0
_POLL = 0.02
_LOOK_AGAIN = 0.25


def start(
    site: Site, found: Found, worker: Worker, timings: Timings, *, outlives: bool = False
) -> None:
    """Make a machine and start it; `outlives` lets it go on when our connection ends.

    The caller holds its name, and calls `remove` in the end. Raises what `lifecycle.steps` raises.
    """
    machine, place = found.machine, site.layout.machine(found.machine.name)
    with timings.stage(Stage.OVERLAY), worker.step("disk"):
        files.make_directory(place.directory)
        # First of all: from now on it is known whose the files are, and the image stays.
        record = _record(site, found)
        records.write(place, record)
        steps.require_image(site, machine)
        existing.require(site.connection, machine)
        steps.write_files(site, machine, found.text)
        steps.make_disks(site, machine, running=False)
        first_boot.before_start(site.layout, machine)
    with timings.stage(Stage.START), worker.step("start"):
        steps.ensure_networks(site, machine)
        key = first_boot.kernel_key(place) if machine.user else ""
        written = domain_xml.write(machine, uuid=machine.uuid, ssh_key=key)
        domain = transient.start(
            site.connection, written.text(), f"machine '{machine.name}'", outlives=outlives
        )
        record = records.read(place) or record
        records.write(place, dataclasses.replace(record, boot_id=domain.ID()))
        steps.forward(site, machine)


def _record(site: Site, found: Found) -> Record:
    """Return what is remembered; not the spec, to whose machines `up` would count it."""
    machine = found.machine
    return Record(
        name=machine.name,
        project=machine.project,
        uuid=machine.uuid,
        uri=site.connection.uri,
        mode=machine.mode.value,
        why=machine.why,
        image=machine.image.name if machine.image else "",
        image_digest=steps.image_digest(machine),
        login=machine.image.login if machine.image else "",
        cpus=machine.cpus,
        memory=machine.memory,
        digest=machine.digest,
        networks=steps.network_names(machine),
        user=machine.user,
        transient=True,
    )


def reach(site: Site, machine: Machine, worker: Worker, timings: Timings) -> Access:
    """Wait until a started machine is ready and ssh lets us in; return the way.

    Mounts and provision steps of its spec are done then, and /dev/kvm was tried where it is nested.
    Raises GuestError at once when the guest panicked or ended, WaitTimeoutError, InterruptError.
    """
    with timings.stage(Stage.BOOT), worker.step("boot", patient=True) as progress:
        deadline = Deadline.after(machine.ready.timeout)
        try:
            waiting.until_ready(site, machine, deadline, progress, lambda: worker.cancelled)
        except (errors.WaitTimeoutError, errors.GuestError) as problem:
            # Nobody can look into a machine that is gone by then.
            problem.hint = _NOT_READY
            raise
    with timings.stage(Stage.READY):
        # Not begun earlier: QEMU's user network takes connections of a guest without an address,
        # and those keep a later one waiting for seconds.
        with worker.step("login", patient=True):
            way = _login(site, machine, worker)
        sharing.mount_inside(site, machine, worker)
        provision.carry_out(site, machine, Provision.MISSING, worker)
        if machine.nested:
            with worker.step("check /dev/kvm", patient=True):
                nested.require(way)
    return way


def _login(site: Site, machine: Machine, worker: Worker) -> Access:
    """Return the way in once we are in. Raises WaitTimeoutError, InterruptError, GuestError."""
    patience = TCG_PATIENCE if machine.accel is Accel.TCG else 1
    deadline = Deadline.after(_LOGIN_SECONDS * patience)
    with contextlib.closing(signs.Greeting()) as greeting:
        while True:
            try:
                way = access.find(site.connection, site.layout, machine.name)
                while not deadline.passed and not worker.cancelled:
                    if ssh.shared(way) or greeting.heard(way.host, way.port):
                        ssh.connect(way, deadline)
                        return way
                    deadline.pause(_POLL)
            except (errors.WaitTimeoutError, errors.GuestError):
                # It has no address yet, or its key is on its way.
                if deadline.passed:
                    raise
            if worker.cancelled:
                raise errors.InterruptError("Interrupted.")
            if deadline.passed:
                raise errors.WaitTimeoutError(
                    f"The guest of '{machine.name}' is ready, and ssh does not answer in it."
                )
            deadline.pause(_LOOK_AGAIN)


def guard(site: Site, machine: Machine) -> Watch:
    """Return what looks after a machine while a job runs in it."""
    domain = domains.get(site.connection, machine.name)
    return Watch(
        machine.name,
        pathlib.Path(machine.console_log),
        lambda: domains.state(domain),
        lambda: domains.force_off(domain),
    )


def remove(site: Site, name: str) -> None:
    """Pull the plug and remove every trace, interrupted or not; fine where nothing was begun.

    A libvirt that was started anew meanwhile is asked anew; where there is none any more, QEMU is
    killed by its process id.
    """
    with interruption.asked(lambda: False):
        try:
            _remove(site, name)
        except (errors.HypervisorError, errors.HostError):
            try:
                with connections.opened(site.connection.uri, site.layout) as fresh:
                    _remove(Site(fresh, site.layout), name)
            except (errors.HypervisorError, errors.HostError):
                orphan.kill(name)
                steps.remove_files(site, name, kept=frozenset())


def _remove(site: Site, name: str) -> None:
    observed = observe.observe(site.connection, site.layout, name)
    if observed.exists or observed.files:
        removal.remove(site, observed, quietly(name), with_kept=True)


def keep(site: Site, machine: Machine) -> None:
    """Make a machine that outlives us an ordinary one, for a person to look into.

    Raises NotFoundError where it did not come so far, HypervisorError.
    """
    place = site.layout.machine(machine.name)
    text = domains.inactive_xml(site.connection, machine.name)
    domains.define(site.connection, text, autostart=False)
    record = records.read(place)
    if record is not None:
        records.write(place, dataclasses.replace(record, transient=False))


def quietly(name: str) -> Worker:
    """Return a worker that says nothing and goes on when others are told to end."""
    return schedule.Worker(name, lambda _event: None, schedule.Crew())
