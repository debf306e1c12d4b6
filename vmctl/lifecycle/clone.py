"""Makes a machine, or an image, of a stopped machine's disks. The source is only read."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor import domains
from vmctl.images import qcow2
from vmctl.lifecycle import (
    cleansing,
    execute,
    first_boot,
    identity,
    observe,
    removal,
    schedule,
    settle,
    snapshots,
    steps,
    taking,
)
from vmctl.lifecycle.events import Event, Note
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine.effects import SYSTEM_DISK
from vmctl.machine.model import Disk, DiskFormat, Machine
from vmctl.machine.observed import Observed
from vmctl.machine.state import State
from vmctl.store import files, inside, records
from vmctl.store import snapshots as trees
from vmctl.store.inside import Inside
from vmctl.store.layout import Layout, MachineFiles

_SECONDS = 3600.0
_FINE = ["-o", "cluster_size=4k"]
"""For a copy that is cleaned: of larger clusters, those that hold anything would keep, with what is
in use, what the guest had deleted in them."""

_LARGEST_FINE = 4 << 40
"""The tables of larger disks (bytes) would be more than qcow2 allows (8 TiB with such clusters)."""

_NOBODY = "localhost"
"""The name that is on an image; who is started from it gets another."""

_MEMORY = 2 << 30
"""Address space of a copying qemu-img (bytes); it needs far less."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be made of a machine; `snapshot` means its disks as they were then.

    `full` says that the copy needs no image below its disks, `keep_identity` that the keys and ids
    of the source stay on them.
    """

    source: str
    name: str
    uri: str | None = None
    snapshot: str = ""
    replace: bool = False
    full: bool = False
    keep_identity: bool = False


def clone(request: Request) -> Iterator[Event]:
    """Make a new machine with copies of a stopped one's disks, on the same image or on none.

    Name, UUID, MAC addresses, ssh keys and cloud-init's seed are its own, and what is on its disks
    of the source's is taken out; forwarded ports are not taken over. It is not started. Where it
    cannot be made nothing of it is left.
    """
    layout = Layout.default()
    with connections.opened(request.uri, layout) as connection:
        site = Site(connection, layout)

        def work(name: str, worker: Worker) -> None:
            with (
                execute.locked(site, request.source) as source,
                execute.locked(site, name) as there,
            ):
                _refuse_taken(site, there)
                machine = _stopped(site, source, request)
                try:
                    _make(site, machine, request, worker)
                except BaseException:
                    _unmake(site, name)
                    raise

        yield from schedule.carry_out([request.name], {}, work)
        yield Note(
            machine=request.name,
            level="info",
            text=f"made of '{request.source}'; forwarded ports were not taken over",
            hint=f"Start it: vmctl start {request.name}",
        )


def _stopped(site: Site, observed: Observed, request: Request) -> Machine:
    """Return the machine to copy. Raises ConflictError where it runs, NotFoundError."""
    snapshots.require(observed)
    name = observed.name
    if observed.intent == settle.RESTORE or observed.state is not State.STOPPED:
        raise errors.ConflictError(
            f"Machine '{name}' is {observed.state}; its disks can be copied while it is stopped.",
            hint=f"Stop it: vmctl stop {name}",
        )
    if request.snapshot:
        snapshots.known(site.layout, name, request.snapshot)
    machine = taking.machine_of(observed)
    if not machine.disks:
        raise errors.UsageError(f"Machine '{name}' has no disk: there is nothing to copy.")
    if any(disk.external for disk in machine.disks):
        raise errors.UsageError(
            f"Machine '{name}' has disks that are not vmctl's own; what shares an image with them "
            "cannot be told.",
            hint="Copy them: qemu-img convert -O qcow2 DISK NEW.qcow2 - and name them in a spec "
            "(disks: path).",
        )
    if machine.nvram or machine.tpm:
        raise errors.UsageError(
            f"Machine '{name}' has UEFI variables or a TPM of its own, which are not copied.",
            hint="Make the new machine from a spec, and copy files with vmctl cp.",
        )
    return machine


def _refuse_taken(site: Site, observed: Observed) -> None:
    """Raise ConflictError for a name that is taken; clear what a killed clone left of it."""
    place = site.layout.machine(observed.name)
    if observed.exists or records.read(place) is not None:
        raise errors.ConflictError(
            f"There is a machine '{observed.name}' already.", hint="Choose another name."
        )
    if records.intent(place).get("clone"):
        steps.remove_files(site, observed.name, kept=frozenset())
    with contextlib.suppress(FileNotFoundError):
        if os.listdir(place.directory):
            raise errors.ConflictError(
                f"'{place.directory}' holds files of an earlier machine '{observed.name}'.",
                hint=f"See what they are: vmctl gc; remove them: vmctl down {observed.name}",
            )


def _make(site: Site, source: Machine, request: Request, worker: Worker) -> None:
    old, new = site.layout.machine(source.name), site.layout.machine(request.name)
    machine = _wanted(source, request, new)
    records.begin(
        new,
        "up",
        digest=machine.digest,
        keep=[],
        networks=steps.network_names(machine),
        clone=source.name,
    )
    clean = cleansing.needed(source) and not request.keep_identity
    words = _of_snapshot(request.snapshot)
    with worker.step("copy disks", patient=True):
        for before, after in zip(source.disks, machine.disks, strict=True):
            _refuse_cancelled(worker)
            _copy(before, after, [*words, *_fine(before, clean=clean)])
            taking.give_to_qemu(pathlib.Path(after.file), machine)
    if clean:
        cleansing.cleanse(site, machine, old, worker)
        with worker.step("pack disks", patient=True):
            for disk in machine.disks:
                _refuse_cancelled(worker)
                _copy(disk, disk, [])
                taking.give_to_qemu(pathlib.Path(disk.file), machine)
    with worker.step("define"):
        with contextlib.suppress(FileNotFoundError):
            files.write(new.payload, old.payload.read_bytes())
        steps.ensure_networks(site, machine)
        with contextlib.suppress(FileNotFoundError):
            steps.write_files(site, machine, old.spec.read_bytes())
        first_boot.prepare(site.layout, machine)
        inside.write(new, _inherited(old, request.snapshot))
        steps.define(site, machine)
        _remember(site, source.name, machine)
        records.finish(new)


def _unmake(site: Site, name: str) -> None:
    """Remove what there is of a machine that could not be made: it never ran."""
    with contextlib.suppress(errors.VmctlError, OSError):
        domain = domains.find(site.connection, name)
        if domain is not None:
            domains.undefine(domain)
        steps.remove_files(site, name, kept=frozenset())


def _inherited(old: MachineFiles, snapshot: str) -> Inside:
    """Return what was done inside by the time of the copied disks; nothing that was of a run."""
    known = inside.read(old)
    if snapshot:
        detail = trees.read_detail(old, snapshot)
        known = inside.parse(detail.files.get("inside", "") if detail is not None else "")
    return dataclasses.replace(known, mounted="", run="", console=0)


def _wanted(source: Machine, request: Request, place: MachineFiles) -> Machine:
    """Return what the clone is to be."""
    machine = identity.of_its_own(source, request.name, place)
    if not request.full:
        return machine
    # A kernel that is started without a boot loader stays in the store.
    image = source.image
    image = dataclasses.replace(image, disk="") if image and image.kernel else None
    disks = tuple(dataclasses.replace(disk, base="") for disk in machine.disks)
    return dataclasses.replace(machine, image=image, disks=disks)


def _refuse_cancelled(worker: Worker) -> None:
    if worker.cancelled:
        raise errors.InterruptError("Interrupted.")


def _copy(disk: Disk, copy: Disk, more: list[str]) -> None:
    """Copy what a disk holds beyond the image that its copy has; snapshots stay behind.

    `more` are words for qemu-img. The copy may take the place of the disk.
    """
    deadline = Deadline.after(_SECONDS)
    target = pathlib.Path(copy.file)
    draft = files.temporary(target)
    files.write(draft, b"")
    words = ["-B", copy.base, "-F", copy.base_format] if copy.base else []
    _convert(disk, draft, [*words, *more], deadline)
    files.publish(draft, target)


def _of_snapshot(name: str) -> list[str]:
    return ["-l", f"snapshot.name={name}"] if name else []


def _fine(disk: Disk, *, clean: bool) -> list[str]:
    return _FINE if clean and disk.size <= _LARGEST_FINE else []


def _convert(disk: Disk, target: pathlib.Path, words: list[str], deadline: Deadline) -> None:
    command = ["qemu-img", "convert", "-f", disk.format, "-O", "qcow2", *words]
    try:
        process.run(
            [*command, disk.file, target],
            deadline,
            limits=process.Limits(address_space=_MEMORY),
            interruptible=True,
        )
    except errors.ProgramError as problem:
        target.unlink(missing_ok=True)
        if "No space left" in problem.details:
            raise files.unusable(target, OSError(28, "No space left on device")) from None
        raise
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    made = qcow2.info(target, DiskFormat.QCOW2, deadline)
    if made.virtual_size != disk.size:
        raise errors.ProgramError(f"The copy of '{disk.file}' has another size than its original.")


def _remember(site: Site, source: str, machine: Machine) -> None:
    known = records.read(site.layout.machine(source))
    domain = domains.get(site.connection, machine.name)
    steps.remember(site, machine, "", domain.UUIDString(), running=False)
    place = site.layout.machine(machine.name)
    made = records.read(place)
    if made is not None and known is not None:
        records.write(place, dataclasses.replace(made, why=known.why, login=known.login))


def commit(request: Request) -> Iterator[Event]:
    """Make an image of a stopped machine's system disk; specs can name it from then on."""
    layout = Layout.default()
    with connections.opened(request.uri, layout) as connection:
        site = Site(connection, layout)
        removal.refuse_foreign(observe.observe(connection, layout, request.source))

        def work(name: str, worker: Worker) -> None:
            with execute.locked(site, name) as observed:
                machine = _stopped(site, observed, request)
                _commit(site, machine, request, worker)

        yield from schedule.carry_out([request.source], {}, work)


def _commit(site: Site, machine: Machine, request: Request, worker: Worker) -> None:
    # Rare, and dear to import.
    from vmctl.images import catalog, imports

    place = site.layout.machine(machine.name)
    disk = machine.disks[0]
    imports.require_name(site.layout, request.name, replace=request.replace)
    if disk.name != SYSTEM_DISK:
        raise errors.UsageError(
            f"Machine '{machine.name}' has no system disk that could become an image: its image "
            "is a kernel that runs from memory.",
            hint="Use an image with a disk, debian-12 for one.",
        )
    base = catalog.stored(site.layout, machine.image.digest) if machine.image else None
    if base is not None and base.container:
        raise errors.UsageError(
            f"Machine '{machine.name}' has the files of a container image on its disk, and no boot "
            "loader: no machine could start from an image of it.",
            hint=f"Copy it instead: vmctl clone {machine.name} NEW; or change the container image, "
            "and import it again.",
        )
    known = None
    with contextlib.suppress(errors.NotFoundError):
        # A disk of the user's own has no name in the store.
        known = catalog.find(site.layout, machine.image.name) if machine.image else None
    draft = files.temporary(place.directory / "commit.qcow2")
    flat = dataclasses.replace(disk, file=str(draft), base="")
    words = _of_snapshot(request.snapshot)
    try:
        with worker.step("copy disk", patient=True):
            _copy(disk, flat, [*words, *_fine(disk, clean=not request.keep_identity)])
        if not request.keep_identity:
            taking.give_to_qemu(draft, machine)
            copy = dataclasses.replace(machine, disks=(flat,), hostname=_NOBODY)
            whole = len(machine.disks) == 1
            cleansing.cleanse(site, copy, place, worker, whole=whole)
            with worker.step("pack disk", patient=True):
                _copy(flat, flat, [])
        with worker.step("image", patient=True) as progress:
            traits = imports.Traits(
                cloud_init=known.cloud_init if known else bool(machine.seed),
                user=known.user if known else machine.user,
                drivers=known.drivers if known else imports.Traits().drivers,
                description=_provenance(machine, request.snapshot),
            )
            order = imports.Order(name=request.name, path=str(draft), replace=request.replace)
            deadline = Deadline.after(_SECONDS)

            def told(what: str, done: int, total: int) -> None:
                progress(what, done, total)

            imports.disk(site.layout, order, DiskFormat.QCOW2, traits, deadline, told)
    finally:
        draft.unlink(missing_ok=True)


def _provenance(machine: Machine, snapshot: str) -> str:
    image = f" on {machine.image.name} {machine.image.digest[:12]}" if machine.image else ""
    then = f", snapshot {snapshot}" if snapshot else ""
    return f"machine {machine.name}{then}{image}"
