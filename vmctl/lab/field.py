"""Who takes part: which modes can run here, each made ready, and why the others cannot."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Sequence

from vmctl import errors
from vmctl.hypervisor.connection import Connection
from vmctl.lab import container, direct, guest, rootfs, starter
from vmctl.lab import domain as lab_domain
from vmctl.lab.container import Bundle, Container
from vmctl.lab.direct import Host
from vmctl.lab.guest import Guest
from vmctl.lab.job import PLACE, Job
from vmctl.lab.results import Contender, State
from vmctl.lab.trial import Trial
from vmctl.lifecycle import workspace
from vmctl.machine.model import Firmware, Image, Machine, Mode, NicKind
from vmctl.store.storage import Storage

MODES = (
    direct.MODE,
    container.MODE,
    *(mode.value for mode in (Mode.PARAVIRT, Mode.HARDWARE, Mode.TCG_VIRTIO, Mode.FULL)),
)
"""What can be asked for, in the order of the columns: from the least between job and processor."""

SETS = {
    Mode.FULL: ("mode=full",),
    Mode.HARDWARE: ("mode=hardware",),
    Mode.PARAVIRT: ("mode=paravirt",),
    Mode.TCG_VIRTIO: ("mode=auto", "accel=tcg", "devices=virtio"),
}
"""What is laid over the spec, for each mode."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Somebody who wants to take part; `machine` is None for the baselines."""

    name: str
    mode: str
    machine: Machine | None = None


@dataclasses.dataclass(slots=True)
class Entries:
    """Who takes part, and who cannot."""

    accepted: list[Entry] = dataclasses.field(default_factory=list)
    refused: list[Contender] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all contenders share; `token` tells this comparison from others."""

    directory: pathlib.Path
    token: str
    connection: Connection | None
    storage: Storage
    job: Job
    disk: pathlib.Path
    initrd: pathlib.Path
    image: Image | None
    peer: str
    netns: str


def enter(
    path: pathlib.Path, modes: Sequence[str], *, uri: str | None, named: bool, token: str
) -> Entries:
    """Return who can take part, by the spec of one machine.

    `named` says that the user named the modes: then one that cannot run here raises HostError; else
    it is refused with its reason and the others go on. Raises SpecError and the like.
    """
    entries = Entries()
    for mode in sorted(modes, key=MODES.index):
        if mode in (container.MODE, direct.MODE):
            entries.accepted.append(Entry(name=mode, mode=mode))
            continue
        try:
            machine = _machine(path, Mode(mode), uri, f"lab-{token}-{mode}")
        except errors.HostError as problem:
            if named:
                raise
            entries.refused.append(
                Contender(
                    name=mode,
                    mode=mode,
                    state=State.REFUSED,
                    why=problem.message,
                    hint=problem.hint,
                    accel=Mode(mode).accel.value,
                    devices=Mode(mode).devices.value,
                )
            )
            continue
        entries.accepted.append(Entry(name=mode, mode=mode, machine=machine))
    return entries


def _machine(path: pathlib.Path, mode: Mode, uri: str | None, name: str) -> Machine:
    space = workspace.open_spec(path, uri=uri, sets=SETS[mode], create_store=True)
    if len(space.machines) != 1:
        raise errors.UsageError(
            f"The spec '{path}' describes {len(space.machines)} machines; one is compared.",
            hint="Give compare a spec with one machine.",
        )
    machine = space.machines[0]
    starter.kind(machine.image.name if machine.image else "")
    if machine.image is not None and machine.image.present and not machine.image.kernel:
        raise errors.UsageError(
            f"The spec '{path}' has 'boot: disk'; the lab starts the kernel of the image itself.",
            hint="Leave boot out.",
        )
    if machine.firmware is not Firmware.BIOS:
        raise errors.UsageError(
            f"The spec '{path}' has firmware '{machine.firmware}'; the lab has BIOS only.",
            hint="Leave the firmware out.",
        )
    others = {nic.kind.value for nic in machine.nics} - {NicKind.USER.value}
    if others:
        raise errors.UsageError(
            f"The spec '{path}' has a network of kind '{min(others)}'; the lab measures cards on "
            "user networking, which needs no rights.",
            hint="Write 'kind: user', or leave networks out.",
        )
    return dataclasses.replace(machine, name=name, project="lab", needs=())


def twins(entries: Entries) -> Entries:
    """Return everybody twice, A and B: a comparison of things with themselves."""
    doubled = [
        dataclasses.replace(
            entry,
            name=f"{entry.name} {letter}",
            machine=_named(entry.machine, letter.lower()),
        )
        for entry in entries.accepted
        for letter in "AB"
    ]
    return Entries(doubled, entries.refused)


def _named(machine: Machine | None, letter: str) -> Machine | None:
    return dataclasses.replace(machine, name=f"{machine.name}-{letter}") if machine else None


def ready(entry: Entry, bench: Bench, shape: Machine | None) -> Trial:
    """Return an entry made ready to run; `shape` is a machine whose size the baselines take.

    Raises HostError where it turns out that it cannot run here.
    """
    cpus = shape.cpus if shape is not None else 1
    if entry.machine is not None:
        return _guest(entry.name, entry.machine, bench)
    if entry.mode == direct.MODE:
        return Host(
            name=entry.name,
            directory=bench.directory,
            job=bench.job,
            disk=bench.disk,
            peer=bench.peer,
            cpus=cpus,
        )
    return _container(entry, bench, cpus, shape.memory if shape is not None else 512 << 20)


def _guest(name: str, machine: Machine, bench: Bench) -> Guest:
    assert bench.connection is not None
    places = lab_domain.Places(
        disk=bench.disk,
        root=bench.directory / f"{machine.name}.qcow2",
        initrd=bench.initrd,
        answer=bench.directory / f"{machine.name}.answer",
        console=bench.directory / f"{machine.name}.console",
    )
    adapted = lab_domain.adapted(machine, places, bench.storage, bench.job.size)
    return guest.Guest(name, bench.connection, adapted, places, bench.job)


def _container(entry: Entry, bench: Bench, cpus: int, memory: int) -> Container:
    directory = bench.directory / f"bundle-{entry.name.replace(' ', '-')}"
    if bench.image is None:
        raise errors.HostError("The image of the machine has no root file system to take.")
    rootfs.unpack(bench.image, directory)
    bundle = Bundle(
        directory=directory,
        programs=bench.directory / PLACE,
        job=bench.job,
        disk=bench.disk,
        memory=memory,
        cpus=tuple(direct.chosen_cpus(cpus)),
        netns=bench.netns,
    )
    identifier = f"vmctl-lab-{bench.token}-{os.path.basename(directory)}"
    runtime, version = container.working_runtime(bundle, identifier)
    return Container(
        name=entry.name, identifier=identifier, runtime=runtime, version=version, bundle=bundle
    )


def clear(directory: pathlib.Path) -> None:
    """Remove what killed comparisons left: containers, their network, files."""
    for place in directory.glob("*"):
        clear_place(place)


def clear_place(place: pathlib.Path) -> None:
    """Remove what one killed comparison left besides guests; its directory goes last."""
    import shutil

    for state in place.glob("bundle-*/state"):
        identifier = f"vmctl-lab-{place.name}-{state.parent.name}"
        for runtime in container.RUNTIMES:
            with contextlib.suppress(errors.VmctlError):
                container.delete(runtime, state.parent, identifier)
    with contextlib.suppress(errors.VmctlError):
        container.drop_network(container.network_name(place.name))
    shutil.rmtree(place, ignore_errors=True)
