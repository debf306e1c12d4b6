"""What the slots of a pool are made from: its spec, held against what a pool can keep warm."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator

import vmctl
from vmctl import errors, sizes
from vmctl.hypervisor.connection import Connection
from vmctl.lifecycle import workspace
from vmctl.machine.model import Accel, Machine, NicKind
from vmctl.runner.pooling.pool import Pool
from vmctl.spec.model import ImageSpec, MachineSpec

_OVERHEAD = 96 << 20
"""Bytes that a QEMU takes beside its guest's memory; its own estimate, for budgets."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One slot's machine, with the spec's path and text and the image it asks for."""

    machine: Machine
    path: str
    text: bytes
    image: ImageSpec | None
    warm: bool
    """Whether the slot is reset from saved memory; else it is made anew for each job."""


def of(pool: Pool, number: int) -> Template:
    """Resolve a pool's spec for one of its slots.

    Raises SpecError, HostError and what `objections` says, as RefusedError or UsageError.
    """
    name = pool.machine(number)
    space = workspace.open_spec(
        pathlib.Path(pool.spec),
        uri=pool.uri,
        sets=(*pool.sets, f"name={name}", f"project={pool.name}"),
        allow_outside=pool.allow_outside,
        create_store=True,
    )
    workspace.require_surroundings(space)
    if len(space.machines) != 1:
        raise errors.UsageError(
            f"Spec '{pool.spec}' has {len(space.machines)} machines; a pool is made of one.",
            hint="Give the pool a spec of one machine, and say how many there are with --slots.",
        )
    machine, spec = space.machines[0], space.document.machines[0]
    for problem in objections(machine, spec, allow_tcg=pool.allow_tcg):
        raise problem
    return Template(
        machine=machine,
        path=os.path.abspath(space.document.path),
        text=space.document.text,
        image=spec.image,
        warm=keeps_memory(machine),
    )


def keeps_memory(machine: Machine) -> bool:
    """Tell whether a job may begin from saved memory.

    Where the guest can run guests of its own, the state of those is not to be part of it: under KVM
    it cannot be kept whole, and where steps ran in the guest, they may have started some.
    """
    return not (machine.nested and (machine.accel is Accel.KVM or machine.provision))


def objections(
    machine: Machine, spec: MachineSpec, *, allow_tcg: bool
) -> Iterator[errors.VmctlError]:
    """Yield why a machine cannot be one of a pool."""
    if machine.accel is Accel.TCG and not allow_tcg:
        yield errors.RefusedError(
            f"The pool would run under TCG, which is no security boundary: {machine.why}",
            hint="Where all jobs are trusted, accept that: --allow-tcg. Else give the host KVM: "
            "vmctl doctor",
        )
    if not machine.user or not machine.nics:
        yield errors.UsageError(
            "A pool needs machines that ssh reaches: a network and a login that vmctl knows.",
            hint="Take an image that vmctl builds, or one with cloud-init, and leave networks: as "
            "it is.",
        )
    if any(step.env for step in spec.provision):
        yield errors.RefusedError(
            "A provision step of the spec has variables (env:), which are kept as secrets, and "
            "what is in a pool's machines every job can read.",
            hint="Give the secret to the job that needs it: vmctl run --env NAME",
        )
    for what, there in _not_for_pools(machine):
        if there:
            yield errors.UsageError(
                f"A pool's machines cannot have {what}.",
                hint="Take it out of the spec, or out for the pool: --set 'KEY=[]'",
            )


def _not_for_pools(machine: Machine) -> Iterator[tuple[str, bool]]:
    yield "mounts: they would carry files from one job to the next", bool(machine.mounts)
    yield "forwards: all slots would want the same ports", bool(machine.forwards)
    yield (
        "disks that exist already (path:): jobs would write to them",
        any(disk.external for disk in machine.disks),
    )
    yield "disks that are kept (keep: true)", any(disk.keep for disk in machine.disks)
    yield "needs:", bool(machine.needs)
    yield "autostart: the supervisor starts them", machine.autostart
    yield (
        "a fixed address",
        any(nic.address for nic in machine.nics if nic.kind is not NicKind.USER),
    )


def key(machine: Machine, connection: Connection) -> str:
    """Return what a saved state depends on, as a digest; another one means that it is made anew.

    The machine's own digest holds the image, the devices and the mode.
    """
    found = connection.versions()
    facts = {
        "machine": machine.digest,
        "image": machine.image.digest if machine.image else "",
        "vmctl": vmctl.__version__,
        "libvirt": found.libvirt,
        "qemu": found.qemu,
        "emulator": machine.emulator,
        "kernel": os.uname().release,
        "processor": _processor(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _processor() -> str:
    """Return what tells the first processor from others: model, microcode and features."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags")
    first = pathlib.Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    return "\n".join(
        line for line in first.splitlines() if line.partition(":")[0].strip() in wanted
    )


def require_within_limit(pool: Pool, machine: Machine, slots: int) -> None:
    """Raise HostError where so many slots would take more memory than the pool may have."""
    if pool.memory_limit and slots * machine.memory_max > pool.memory_limit:
        raise errors.HostError(
            f"{slots} slots of {sizes.text(machine.memory_max)} are more than the "
            f"{sizes.text(pool.memory_limit)} that pool '{pool.name}' may have.",
            hint=f"Take at most {pool.memory_limit // machine.memory_max} slots, or give it more: "
            "--memory-limit",
        )


def require_room(pool: Pool, machine: Machine, slots: int, *, held: int = 0) -> None:
    """Raise HostError where so many slots would not fit; `held` exist already."""
    require_within_limit(pool, machine, slots)
    each = machine.memory_max + _OVERHEAD
    free = available()
    if (slots - held) * each > free:
        raise errors.HostError(
            f"{slots - held} more machines of {sizes.text(machine.memory_max)} do not fit into the "
            f"{sizes.text(free >> 20 << 20)} of memory that this host has available.",
            hint="Take fewer slots, or machines with less memory: --set memory=512MiB",
        )


def available() -> int:
    """Return how much memory (bytes) the kernel would give out without swapping (proc(5))."""
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) << 10
    return 0
