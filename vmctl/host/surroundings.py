"""What this host is and what it runs on: distribution, container, hypervisor below."""

from __future__ import annotations

import os
import pathlib
import shlex

from vmctl.host import reading
from vmctl.host.facts import Cpu, Distribution

UNKNOWN = "unknown"

_INITIAL_NAMESPACES = {"pid": 0xEFFFFFFC, "uts": 0xEFFFFFFE, "ipc": 0xEFFFFFFF}
"""Inode numbers that the kernel gives to the first namespaces (linux/proc_ns.h)."""

_DMI = (
    ("virtualbox", "virtualbox"),
    ("innotek", "virtualbox"),
    ("vmware", "vmware"),
    ("parallels", "parallels"),
    ("bhyve", "bhyve"),
    ("google compute engine", "google"),
    ("amazon ec2", "amazon"),
    ("qemu", "kvm"),
    ("kvm", "kvm"),
    ("openstack", "kvm"),
    ("kubevirt", "kvm"),
    ("digitalocean", "kvm"),
    ("hvm domu", "xen"),
    ("xen", "xen"),
    ("microsoft corporation virtual machine", "hyperv"),
)
_SIGNATURES = {
    b"KVMKVMKVM\0\0\0": "kvm",
    b"TCGTCGTCGTCG": "qemu",
    b"VMwareVMware": "vmware",
    b"VBoxVBoxVBox": "virtualbox",
    b"Microsoft Hv": "hyperv",
    b"XenVMMXenVMM": "xen",
    b"bhyve bhyve ": "bhyve",
    b" lrpepyh  vr": "parallels",
}
_CLOCKS = {"kvm-clock": "kvm", "xen": "xen", "hyperv_clocksource_tsc_page": "hyperv"}
_CONTAINER_NAMES = ("docker", "podman", "lxc", "kubernetes")


def distribution(root: pathlib.Path) -> Distribution:
    """Return what os-release(5) says."""
    fields: dict[str, str] = {}
    text = reading.text(root / "etc/os-release") or reading.text(root / "usr/lib/os-release")
    for row in text.splitlines():
        key, equals, value = row.partition("=")
        if equals:
            fields[key.strip()] = _unquoted(value.strip())
    return Distribution(
        id=fields.get("ID", ""),
        id_like=tuple(fields.get("ID_LIKE", "").split()),
        version=fields.get("VERSION_ID", ""),
        name=fields.get("PRETTY_NAME", fields.get("NAME", "")),
    )


def _unquoted(value: str) -> str:
    try:
        return " ".join(shlex.split(value))
    except ValueError:
        return value.strip("\"'")


def container(root: pathlib.Path) -> str:
    """Return the kind of container this process is in, '' for none.

    A marker file alone proves nothing (disk images are made from container images), so whoever is
    in the kernel's first PID, UTS and IPC namespaces is in no container.
    """
    if all(_in_first_namespace(root, name) for name in _INITIAL_NAMESPACES):
        return ""
    named = reading.line(root / "run/systemd/container") or _environment_of_init(root)
    if os.path.isdir(root / "var/run/secrets/kubernetes.io"):
        return "kubernetes"
    known = next((name for name in _CONTAINER_NAMES if name in named), "")
    if known:
        return known
    if os.path.exists(root / "run/.containerenv"):
        return "podman"
    if os.path.exists(root / ".dockerenv"):
        return "docker"
    if os.path.exists(root / "dev/lxd") or os.path.exists(root / "dev/.lxc"):
        return "lxc"
    if named or _in_other_namespace(root, "pid"):
        return UNKNOWN
    return ""


def _namespace(root: pathlib.Path, name: str) -> int:
    try:
        text = os.readlink(root / "proc/self/ns" / name)
        return int(text.partition("[")[2].rstrip("]"))
    except (OSError, ValueError):
        return 0


def _in_first_namespace(root: pathlib.Path, name: str) -> bool:
    return _namespace(root, name) == _INITIAL_NAMESPACES[name]


def _in_other_namespace(root: pathlib.Path, name: str) -> bool:
    return _namespace(root, name) not in (0, _INITIAL_NAMESPACES[name])


def _environment_of_init(root: pathlib.Path) -> str:
    for item in reading.raw(root / "proc/1/environ").split(b"\0"):
        key, _, value = item.partition(b"=")
        if key == b"container":
            return value.decode("ascii", "replace")
    return ""


def wsl(root: pathlib.Path) -> bool:
    """Tell whether this is Windows' subsystem for Linux."""
    return "microsoft" in reading.line(root / "proc/sys/kernel/osrelease").lower()


def virtual(root: pathlib.Path, cpu: Cpu) -> str:
    """Return the hypervisor that this host runs under, '' on bare metal, 'unknown' if unnamed."""
    if reading.line(root / "sys/hypervisor/type") == "xen":
        # dom0 is a guest of Xen too, but one that owns the hardware.
        privileged = "control_d" in reading.text(root / "proc/xen/capabilities")
        return "xen-dom0" if privileged else "xen"
    by_dmi = _by_dmi(root)
    x86 = bool(cpu.flags)
    if x86 and not cpu.hypervisor:
        # Amazon's and Google's bare metal carries the same DMI names as their virtual machines.
        return "" if by_dmi in {"amazon", "google"} else by_dmi
    by_signature = _SIGNATURES.get(_signature(root), "")
    if by_dmi == "kvm" and (by_signature == "qemu" or "TCG" in cpu.model):
        return "qemu"
    found = by_dmi or by_signature or _by_clock(root)
    return found or (UNKNOWN if cpu.hypervisor else "")


def _by_dmi(root: pathlib.Path) -> str:
    directory = root / "sys/class/dmi/id"
    fields = ("sys_vendor", "product_name", "board_vendor", "bios_vendor")
    words = " ".join(reading.line(directory / field) for field in fields).lower()
    return next((name for needle, name in _DMI if needle in words), "")


def _signature(root: pathlib.Path) -> bytes:
    """CPUID leaf 0x40000000 through the cpuid device: ebx, ecx, edx."""
    return reading.word(root / "dev/cpu/0/cpuid", 0x40000000, 16)[4:]


def _by_clock(root: pathlib.Path) -> str:
    path = root / "sys/devices/system/clocksource/clocksource0/available_clocksource"
    offered = reading.text(path).split()
    return next((name for clock, name in _CLOCKS.items() if clock in offered), "")
