"""The port of this host that leads to a guest's ssh server, over QEMU's user network."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid

from vmctl import errors
from vmctl.hypervisor import domains, monitor
from vmctl.hypervisor.connection import Connection
from vmctl.machine.model import Forward, Machine
from vmctl.store import records
from vmctl.store.layout import MachineFiles

_SSH = 22
_PORTS = range(20000, 32768)
"""Below the ports that the kernel gives to clients (ip_local_port_range begins at 32768)."""

_STRIDE = 7919
_TRIES = 20


def wanted(machine: Machine, netdev: str) -> bool:
    """Tell whether vmctl forwards such a port: where ssh lets it in, and the spec has none."""
    forwarded = any(item.guest == _SSH and item.protocol == "tcp" for item in machine.forwards)
    return bool(machine.user and netdev) and not forwarded


def present(place: MachineFiles, there: set[Forward]) -> Forward | None:
    """Return the forward that vmctl added by itself, if it is there."""
    record = records.read(place)
    port = record.ssh_port if record is not None else 0
    return next((item for item in there if port and item == _to_ssh(port)), None)


def _to_ssh(port: int) -> Forward:
    return Forward(host=port, guest=_SSH)


def add(connection: Connection, netdev: str, machine: Machine, place: MachineFiles) -> None:
    """Forward a port that nobody has, the one of last time if it is free, and remember it.

    Raises ConflictError where none could be had.
    """
    record = records.read(place)
    before = record.ssh_port if record is not None else 0
    port = _forwarded(connection, netdev, machine, before)
    if record is not None and port != before:
        records.write(place, dataclasses.replace(record, ssh_port=port))


def _forwarded(connection: Connection, netdev: str, machine: Machine, before: int) -> int:
    domain = domains.get(connection, machine.name)
    first = uuid.UUID(machine.uuid).int
    tried = [_PORTS[(first + step * _STRIDE) % len(_PORTS)] for step in range(_TRIES)]
    for port in [before, *tried] if before else tried:
        # QEMU takes the port or fails: nobody can come between a look and the taking.
        with contextlib.suppress(errors.ConflictError):
            monitor.add_forward(domain, netdev, _to_ssh(port))
            return port
    raise errors.ConflictError(
        f"No port of 127.0.0.1 could be forwarded to the ssh server of machine '{machine.name}': "
        f"{_TRIES} were tried, from {tried[0]} on, and all are taken.",
        hint="Choose one in the spec: forwards: [{host: 2222, guest: 22}]",
    )
