"""The codes of the findings. Stable: a code keeps its meaning; docs/doctor.md lists them all."""

from __future__ import annotations

from collections.abc import Mapping

from vmctl.doctor.model import Finding, Level

TITLES: Mapping[str, str] = {
    "HOST001": "Architecture",
    "HOST002": "Platform",
    "HOST003": "Memory",
    "CPU001": "CPU virtualization",
    "CPU002": "Second-level paging",
    "CPU003": "Firmware setting",
    "KVM001": "KVM",
    "KVM002": "KVM modules",
    "KVM003": "KVM device",
    "KVM004": "KVM device, you",
    "KVM005": "KVM device, QEMU's user",
    "KVM006": "KVM answers",
    "KVM007": "Other hypervisors",
    "KVM010": "KVM runs code",
    "KVM011": "Probe: 64-bit code",
    "KVM012": "Probe: SSE",
    "KVM013": "Probe: cmpxchg16b",
    "KVM014": "Probe: exception",
    "KVM015": "Probe: speed",
    "KVM020": "Libvirt's QEMU cache",
    "NEST001": "Nested virtualization",
    "EMU001": "Emulator",
    "EMU002": "QEMU version",
    "FW001": "UEFI firmware",
    "FW002": "Secure Boot",
    "TPM001": "TPM emulator",
    "LIBVIRT001": "Libvirt reachable",
    "LIBVIRT002": "Libvirt version",
    "LIBVIRT003": "KVM in libvirt",
    "NET001": "vhost-net",
    "NET002": "TUN/TAP",
    "NET003": "dnsmasq",
    "NET004": "Packet filter",
    "NET005": "vsock",
    "SHARE001": "Shared directories",
    "STORE001": "Store, QEMU's user",
    "STORE002": "Store permissions",
    "STORE003": "Disk space",
    "MODE001": "Modes",
}


def finding(
    code: str, level: Level, detail: str = "", *, cause: str = "", fix: str = ""
) -> Finding:
    """Return the finding with this code."""
    return Finding(code=code, title=TITLES[code], level=level, detail=detail, cause=cause, fix=fix)


def ok(code: str, detail: str) -> Finding:
    """Return a finding that all is well."""
    return finding(code, Level.OK, detail)


def info(code: str, detail: str) -> Finding:
    """Return a finding that is worth knowing and nobody's fault."""
    return finding(code, Level.INFO, detail)
