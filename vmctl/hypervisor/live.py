"""Changes of a domain while it runs; the definition is changed elsewhere, by defining it anew."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import libvirt

from vmctl.hypervisor import failures
from vmctl.machine.limits import NO_MEMORY_LIMIT, PERIOD, Limits
from vmctl.machine.xml.element import METADATA

_PREFIX = "vmctl"
_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
_KIB = 1024
_NO_QUOTA = -1


def set_memory(domain: libvirt.virDomain, size: int) -> None:
    """Ask the balloon for another size, in bytes, up to the machine's memory_max."""
    with _changing(domain, "its memory"):
        domain.setMemoryFlags(size // _KIB, _LIVE)


def set_cpus(domain: libvirt.virDomain, count: int) -> None:
    """Plug processors in or out; out needs a guest that lets go of them."""
    with _changing(domain, "its processors"):
        domain.setVcpusFlags(count, _LIVE)


def grow_disk(domain: libvirt.virDomain, target: str, size: int) -> None:
    """Give a disk another size in bytes; never call it with a smaller one.

    libvirt and QEMU shrink without a word, and the data is gone.
    """
    with _changing(domain, f"disk '{target}'"):
        domain.blockResize(target, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)


def capacity(domain: libvirt.virDomain, target: str) -> int:
    """Return the size of a disk in bytes, as QEMU has it open."""
    with failures.translated(f"ask for the size of disk '{target}' of '{domain.name()}'"):
        return int(domain.blockInfo(target)[0])


def add_io_thread(domain: libvirt.virDomain) -> None:
    """Give disks that are plugged in later the thread that serves them."""
    with _changing(domain, "its I/O threads"):
        domain.addIOThread(1, _LIVE)


def plug(domain: libvirt.virDomain, device: str) -> None:
    """Plug in a device, given as its XML."""
    with _changing(domain, "its devices"):
        domain.attachDeviceFlags(device, _LIVE)


def unplug(domain: libvirt.virDomain, device: str) -> None:
    """Ask for a device, given as its XML, to be unplugged; the guest lets go of it later."""
    with _changing(domain, "its devices"):
        domain.detachDeviceFlags(device, _LIVE)


def change(domain: libvirt.virDomain, device: str) -> None:
    """Change a device that stays: the medium of a CD-ROM."""
    with _changing(domain, "its devices"):
        domain.updateDeviceFlags(device, _LIVE)


def describe(domain: libvirt.virDomain, text: str) -> None:
    """Change the description of a running domain; an empty one is taken away."""
    kind = libvirt.VIR_DOMAIN_METADATA_DESCRIPTION
    with _changing(domain, "its description"):
        domain.setMetadata(kind, text or None, None, None, _LIVE)


def note(domain: libvirt.virDomain, text: str) -> None:
    """Put our own element, given without a namespace, into the running domain's metadata."""
    kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    with _changing(domain, "its metadata"):
        domain.setMetadata(kind, text, _PREFIX, METADATA, _LIVE)


def bind_cpus(domain: libvirt.virDomain, cpus: frozenset[int]) -> None:
    """Have the virtual processors, and QEMU's other threads, run on these of the host."""
    with _changing(domain, "its processors"):
        count = max(len(domain.connect().getCPUMap()[1]), max(cpus) + 1)
        chosen = tuple(index in cpus for index in range(count))
        for index in range(domain.vcpusFlags(_LIVE)):
            domain.pinVcpuFlags(index, chosen, _LIVE)
        domain.pinEmulator(chosen, _LIVE)
        for thread in domain.ioThreadInfo(_LIVE):
            domain.pinIOThread(thread[0], chosen, _LIVE)


def weigh_cpu(domain: libvirt.virDomain, limits: Limits) -> None:
    """Change the share of the CPU."""
    with _changing(domain, "its share of the CPU"):
        domain.setSchedulerParametersFlags({"cpu_shares": limits.cpu_shares}, _LIVE)


def limit_cpu(domain: libvirt.virDomain, limits: Limits) -> None:
    """Change the quota of CPU time."""
    quota = limits.quota_microseconds or _NO_QUOTA
    with _changing(domain, "its quota of CPU time"):
        domain.setSchedulerParametersFlags({"global_period": PERIOD, "global_quota": quota}, _LIVE)


def limit_memory(domain: libvirt.virDomain, limits: Limits) -> None:
    """Change the most memory that QEMU may take."""
    most = limits.memory // _KIB or NO_MEMORY_LIMIT
    with _changing(domain, "its memory limit"):
        domain.setMemoryParameters({"hard_limit": most}, _LIVE)


def limit_io(domain: libvirt.virDomain, limits: Limits) -> None:
    """Change the weight of all of its block I/O."""
    with _changing(domain, "its I/O weight"):
        domain.setBlkioParameters({"weight": limits.io_weight}, _LIVE)


def limit_disk(domain: libvirt.virDomain, target: str, limits: Limits) -> None:
    """Change what one disk may do each second; 0 takes a limit away."""
    wanted = dict.fromkeys(
        ("read_iops_sec", "write_iops_sec", "read_bytes_sec", "write_bytes_sec"), 0
    )
    with _changing(domain, f"the limits of disk '{target}'"):
        domain.setBlockIoTune(target, wanted | limits.disk, _LIVE)


def limit_card(domain: libvirt.virDomain, mac: str, limits: Limits) -> None:
    """Change what one card may send and receive each second; 0 takes a limit away."""
    average = limits.net_rate // _KIB
    with _changing(domain, f"the rate of card '{mac}'"):
        domain.setInterfaceParameters(
            mac, {"inbound.average": average, "outbound.average": average}, _LIVE
        )


@contextlib.contextmanager
def _changing(domain: libvirt.virDomain, what: str) -> Iterator[None]:
    with failures.translated(f"change {what} while machine '{domain.name()}' runs"):
        yield
