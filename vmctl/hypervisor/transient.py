"""Domains that live no longer than the connection that started them."""

from __future__ import annotations

import libvirt

from vmctl.hypervisor import failures
from vmctl.hypervisor.connection import Connection


def start(connection: Connection, xml: str) -> libvirt.virDomain:
    """Start a domain that is defined nowhere and ends with the connection, however that ends.

    Not even a killed vmctl leaves such a guest behind (VIR_DOMAIN_START_AUTODESTROY).
    """
    flags = libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_VALIDATE
    with failures.translated("start a machine of the lab"):
        return connection.handle.createXML(xml, flags)
