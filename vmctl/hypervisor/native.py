"""What libvirt makes of a domain's XML: QEMU's command line, without starting anything."""

from __future__ import annotations

import shlex

import libvirt

from vmctl.hypervisor.connection import Connection


def argv(connection: Connection, xml: str) -> list[str]:
    """Return the command line that libvirt would start QEMU with; nothing where it cannot say."""
    try:
        text = connection.handle.domainXMLToNative("qemu-argv", xml, 0)
    except libvirt.libvirtError:
        return []
    # The environment comes first, and each option has a line of its own.
    words = shlex.split(text.replace("\\\n", " "))
    first = next((place for place, word in enumerate(words) if word.startswith("/")), 0)
    return words[first:]
