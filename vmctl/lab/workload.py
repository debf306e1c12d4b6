"""What a workload is, and what is quoted about workloads."""

from __future__ import annotations

import dataclasses
import enum


class Group(enum.StrEnum):
    """What a workload is about; also the heading it stands under."""

    PROCESSOR = "processor"
    MEMORY = "memory"
    KERNEL = "kernel"
    EXITS = "exits"
    DISK = "disk"
    NETWORK = "network"
    START = "start"
    PRICE = "price"

    @property
    def heading(self) -> str:
        """What stands above its rows."""
        return _TITLES[self]


_TITLES = {
    Group.PROCESSOR: "Processor",
    Group.MEMORY: "Memory",
    Group.KERNEL: "System calls, processes, time",
    Group.EXITS: "What leaves the guest",
    Group.DISK: "Disk",
    Group.NETWORK: "Network",
    Group.START: "From start to work",
    Group.PRICE: "What it costs the host",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One row. `unit` is that of the raw samples; `mechanism` says in plain words what makes it.

    `tool` is who measures it: the probe, or vmctl itself from outside the guest.
    """

    name: str
    title: str
    group: Group
    unit: str
    mechanism: str
    references: tuple[str, ...] = ()
    tool: str = "probe"
    quick: bool = True

    @property
    def less_is_better(self) -> bool:
        """True for times and sizes, false for throughput."""
        return "/s" not in self.unit


ADAMS = "Adams and Agesen, A Comparison of Software and Hardware Techniques, ASPLOS 2006"
FELTER = "Felter et al., An Updated Performance Comparison, IBM RC25482, 2014"
BELLARD = "Bellard, QEMU, a Fast and Portable Dynamic Translator, USENIX 2005"
VIRTIO = "Virtual I/O Device (VIRTIO) 1.2, OASIS, sections 2.6 and 5.2"
RUSSELL = "Russell, virtio: towards a de-facto standard, SIGOPS OSR 42(5), 2008"
FIRECRACKER = "Agache et al., Firecracker, NSDI 2020"
AMD = "AMD64 Architecture Programmer's Manual, volume 2, chapter 15"
KERNEL_CLOCK = "Linux, Documentation/virt/kvm/x86/timekeeping.rst"
NAMESPACES = "namespaces(7), cgroups(7)"
