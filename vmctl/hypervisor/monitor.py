"""QEMU's own monitor, for what libvirt has no call for: forwarded ports and the true status."""

from __future__ import annotations

import json
import re

import libvirt
import libvirt_qemu

from vmctl import errors
from vmctl.hypervisor import failures
from vmctl.machine.model import Forward

_FORWARD = re.compile(
    r"^\s*(?P<protocol>TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+(?P<address>\S+)\s+(?P<host>\d+)"
    r"\s+\S+\s+(?P<guest>\d+)",
    re.MULTILINE,
)
_THROTTLES = ("iops_rd", "iops_wr", "bps_rd", "bps_wr")


def status(domain: libvirt.virDomain) -> str:
    """Return QEMU's run state (query-status), or nothing when it cannot be asked."""
    try:
        answer = libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-status"}', 0)
        return str(json.loads(answer)["return"]["status"])
    except (libvirt.libvirtError, ValueError, KeyError, TypeError):
        return ""


def kvm_enabled(domain: libvirt.virDomain) -> bool:
    """Tell whether QEMU itself says that KVM runs the guest (query-kvm)."""
    with failures.translated(f"ask QEMU about machine '{domain.name()}'"):
        answer = libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-kvm"}', 0)
    return bool(json.loads(answer)["return"]["enabled"])


def throttles(domain: libvirt.virDomain) -> dict[str, dict[str, int]]:
    """Return what QEMU itself holds each disk to (query-block), by the disk's alias.

    The keys are QEMU's: iops_rd, iops_wr, bps_rd, bps_wr; 0 is no limit.
    """
    with failures.translated(f"ask QEMU about the disks of machine '{domain.name()}'"):
        answer = libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-block"}', 0)
    found = {}
    for block in json.loads(answer)["return"]:
        path = str(block.get("qdev", "")).removeprefix("/machine/peripheral/")
        medium = block.get("inserted") or {}
        found[path.partition("/")[0]] = {key: int(medium.get(key, 0)) for key in _THROTTLES}
    return found


def forwards(domain: libvirt.virDomain) -> set[Forward]:
    """Return the ports that QEMU's user network forwards now."""
    return {
        Forward(
            host=int(match["host"]),
            guest=int(match["guest"]),
            host_address=match["address"].replace("*", "0.0.0.0"),  # noqa: S104  (QEMU's notation)
            protocol=match["protocol"].lower(),
        )
        for match in _FORWARD.finditer(_human(domain, "info usernet"))
    }


def add_forward(domain: libvirt.virDomain, netdev: str, forward: Forward) -> None:
    """Forward a port; raises ConflictError when the host's port is taken.

    Lasts as long as the QEMU process. HMP has the only such command (hostfwd_add).
    """
    rule = f"{forward.protocol}:{forward.host_address}:{forward.host}-:{forward.guest}"
    answer = _human(domain, f"hostfwd_add {netdev} {rule}").strip()
    if answer:
        raise errors.ConflictError(
            f"Port {forward.host} of {forward.host_address} cannot be forwarded to machine "
            f"'{domain.name()}': {answer.rstrip('.')}.",
            hint=f"See who has it: ss -ltnup 'sport = :{forward.host}'",
        )


def remove_forward(domain: libvirt.virDomain, netdev: str, forward: Forward) -> None:
    """Stop forwarding a port."""
    rule = f"{forward.protocol}:{forward.host_address}:{forward.host}"
    _human(domain, f"hostfwd_remove {netdev} {rule}")


def _human(domain: libvirt.virDomain, command: str) -> str:
    with failures.translated(f"reach QEMU's monitor of machine '{domain.name()}'"):
        return str(
            libvirt_qemu.qemuMonitorCommand(
                domain, command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
            )
        )
