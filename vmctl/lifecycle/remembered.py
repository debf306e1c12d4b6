"""The way in that an earlier command left open, found without libvirt.

Asking libvirt, and importing what reads its answers, takes longer than many a command in a guest.
"""

from __future__ import annotations

import os

from vmctl.deadline import TCG_PATIENCE
from vmctl.guest import ssh
from vmctl.guest.ssh import Access
from vmctl.store import records
from vmctl.store.layout import Layout

_EMULATED = ("full", "tcg-virtio")


def access(layout: Layout, name: str, uri: str | None) -> Access | None:
    """Return how a machine is reached where a connection to this run of it is open, else None.

    The connection is to the guest that `access.find` led to, and ends with its QEMU. Only user
    networking has an address that the store knows.
    """
    place = layout.machine(name)
    record = records.read(place)
    asked = uri or os.environ.get("LIBVIRT_DEFAULT_URI")
    if record is None or not record.ssh_port or not record.user or asked not in (None, record.uri):
        return None
    found = Access(
        name=name,
        host="127.0.0.1",
        port=record.ssh_port,
        user=record.user,
        key=place.ssh_key,
        known_hosts=place.known_hosts,
        alias=f"vmctl-{name}",
        pinned=place.host_key.exists(),
        run=record.run,
        patience=TCG_PATIENCE if record.mode in _EMULATED else 1,
    )
    return found if ssh.shared(found) else None
