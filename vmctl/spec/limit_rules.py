"""Rules about `resources` that need more than one key to be seen to be broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from vmctl import sizes
from vmctl.spec.choices import NetworkKind
from vmctl.spec.model import MachineSpec
from vmctl.spec.objection import Objection

QEMU_NEEDS = 256 << 20
"""Bytes that QEMU takes beside the guest's memory: 150 to 200 MiB under TCG, less under KVM."""


def _memory(spec: MachineSpec) -> Iterator[Objection]:
    limit = spec.resources.memory_limit if spec.resources else None
    if limit is None:
        return
    guest = spec.memory_max or spec.memory
    least = guest + QEMU_NEEDS
    if limit < least:
        message = (
            f"memory_limit is {sizes.text(limit)}; the guest has {sizes.text(guest)} and QEMU "
            f"itself needs {sizes.text(QEMU_NEEDS)}: the kernel would end the machine"
        )
        hint = f"write at least {sizes.text(least)}"
        yield Objection(("resources", "memory_limit"), message, hint)


def _cards(spec: MachineSpec) -> Iterator[Objection]:
    if spec.resources is None or spec.resources.net_rate is None:
        return
    location = ("resources", "net_rate")
    if not spec.networks:
        yield Objection(location, "net_rate is set, and the machine has no network card")
    elif any(network.kind is NetworkKind.USER for network in spec.networks):
        message = (
            "net_rate cannot hold on a network of kind 'user': QEMU carries its packets itself, "
            "past every queue of the host"
        )
        yield Objection(location, message, "write 'networks: [{kind: nat}]', or leave it out")


RULES: tuple[Callable[[MachineSpec], Iterable[Objection]], ...] = (_memory, _cards)
