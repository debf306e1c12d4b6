"""Domains that live no longer than the connection that started them."""

from __future__ import annotations

import libvirt

from vmctl.hypervisor import failures
from vmctl.hypervisor.connection import Connection


def start(
    connection: Connection,
    xml: str,
    what: str = "a machine of the lab",
    *,
    outlives: bool = False,
) -> libvirt.virDomain:
    """Start a domain that is defined nowhere and ends with the connection, however that ends.

    Not even a killed vmctl leaves such a guest behind (VIR_DOMAIN_START_AUTODESTROY), unless it
    `outlives` the connection.
    """
    flags = libvirt.VIR_DOMAIN_START_VALIDATE
    if not outlives:
        flags |= libvirt.VIR_DOMAIN_START_AUTODESTROY
    with failures.translated(f"start {what}"):
        return connection.handle.createXML(xml, flags)
