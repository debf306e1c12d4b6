"""The identity of a machine that is made of another's disks."""

from __future__ import annotations

import dataclasses
import secrets
import uuid

from vmctl.machine.model import Machine, Nic
from vmctl.store.layout import MachineFiles


def of_its_own(source: Machine, name: str, place: MachineFiles) -> Machine:
    """Return a machine as `source`, under another name and with files, UUID and MACs of its own.

    Forwarded ports and fixed addresses are the source's still, and so are not taken over.
    """
    return dataclasses.replace(
        source,
        name=name,
        uuid=str(uuid.uuid4()),
        hostname=name if source.hostname in ("", source.name) else source.hostname,
        console_log=str(place.console_log),
        seed=str(place.seed) if source.seed else "",
        nvram=str(place.nvram) if source.nvram else "",
        disks=tuple(
            dataclasses.replace(disk, file=str(place.disk(disk.name))) for disk in source.disks
        ),
        nics=tuple(_replugged(nic) for nic in source.nics),
        forwards=(),
        needs=(),
        autostart=False,
    )


def _replugged(nic: Nic) -> Nic:
    """Return a card with a MAC of its own in QEMU's range, and no fixed address."""
    mac = ":".join(["52", "54", "00", *(f"{byte:02x}" for byte in secrets.token_bytes(3))])
    return dataclasses.replace(nic, mac=mac, address="", gateway="", dns=())
