"""What is measured: each workload with its unit, the mechanism behind it, and references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vmctl import errors
from vmctl.lab import standard
from vmctl.lab.workload import (
    ADAMS,
    AMD,
    BELLARD,
    FELTER,
    FIRECRACKER,
    KERNEL_CLOCK,
    NAMESPACES,
    RUSSELL,
    VIRTIO,
    Group,
    Workload,
)

_PROBE = (
    Workload(
        name="cpu-integer",
        title="sorting, for each number",
        group=Group.PROCESSOR,
        unit="ns",
        mechanism="Under TCG each block of the guest's instructions is translated once into the "
        "host's and kept; what remains is longer code than the original: the guest's registers and "
        "flags live in memory, and each load and store looks its address up. Under KVM, in a "
        "container and on the host the processor runs the very same instructions, and nothing is "
        "in between.",
        references=(BELLARD, FELTER),
    ),
    Workload(
        name="cpu-float",
        title="floating point, an operation",
        group=Group.PROCESSOR,
        unit="ns",
        mechanism="TCG does not hand floating point to the host's unit as it stands: rounding, "
        "exceptions and NaNs must come out as the guest's processor would have them, so each "
        "operation is a call of a function that checks first. It is the row where translation "
        "loses most. Hardware assistance changes nothing: no instruction here leaves the guest.",
        references=(BELLARD,),
    ),
    Workload(
        name="memory-read",
        title="memory, read in a row",
        group=Group.MEMORY,
        unit="MiB/s",
        mechanism="TCG looks every address up in a table of its own (the software TLB) before "
        "it loads. With nested paging the processor walks two sets of page tables by itself, and "
        "reading in a row needs few walks.",
        references=(BELLARD, FELTER),
    ),
    Workload(
        name="memory-random",
        title="memory, one access at random",
        group=Group.MEMORY,
        unit="ns",
        mechanism="Each access waits for memory and often for a page-table walk. With nested "
        "paging a walk touches up to 24 entries in place of 4, which is where hardware assistance "
        "loses a few per cent; huge pages win most of them back.",
        references=(FELTER, AMD),
    ),
    Workload(
        name="system-call",
        title="system call",
        group=Group.KERNEL,
        unit="ns",
        mechanism="SYSCALL goes from ring 3 to ring 0. In a VM both rings are the guest's own, "
        "the hypervisor is not asked, and with hardware assistance it costs what it costs on the "
        "host. TCG emulates the change of rings. A container makes the host kernel's own call; "
        "its seccomp filter, where there is one, is looked through each time.",
        references=(ADAMS,),
    ),
    Workload(
        name="clock-read",
        title="reading the clock",
        group=Group.KERNEL,
        unit="ns",
        mechanism="On the host it reads the time-stamp counter without entering the kernel, and "
        "with kvmclock (paravirt) so does a guest. Under TCG the counter itself is a function of "
        "QEMU's. A guest that trusts neither reads a register of an emulated device (HPET, ACPI): "
        "then each look at the clock leaves the guest. The clock that a guest has chosen is in the "
        "raw data.",
        references=(KERNEL_CLOCK,),
    ),
    Workload(
        name="context-switch",
        title="switch between processes",
        group=Group.KERNEL,
        unit="ns",
        mechanism="Two system calls on a pipe, the scheduler, and new page tables. Nested paging "
        "lets the guest load CR3 without an exit (with shadow paging each load was one). TCG "
        "throws its software TLB away at each switch and fills it anew.",
        references=(ADAMS,),
    ),
    Workload(
        name="process-start",
        title="fork, exit and wait",
        group=Group.KERNEL,
        unit="ns",
        mechanism="Page tables are copied and taken down: many writes to them, many faults. The "
        "guest does that by itself under nested paging; TCG notices each changed mapping. In a "
        "container it is the host kernel's work, with the cgroup counting one process more.",
        references=(ADAMS, NAMESPACES),
    ),
    Workload(
        name="page-fault",
        title="first touch of a page",
        group=Group.KERNEL,
        unit="ns",
        mechanism="The guest's kernel finds a page, zeroes it and maps it. Only if the host has "
        "not backed that memory yet is there a second fault, in the host (a nested page fault, an "
        "exit). TCG runs the guest's fault handler translated, and a zeroed page is 512 stores.",
        references=(ADAMS, AMD),
    ),
    Workload(
        name="timer",
        title="waking up too late",
        group=Group.KERNEL,
        unit="ns",
        mechanism="The guest arms a timer, an exit, and halts, another exit; the host wakes "
        "QEMU's thread, which sets the interrupt, and only then does the guest's sleeper run. On "
        "the host and in a container it is the kernel's timer slack (50 µs) and one wake-up.",
        references=(KERNEL_CLOCK,),
    ),
    Workload(
        name="port-io",
        title="reading an I/O port",
        group=Group.EXITS,
        unit="ns",
        mechanism="IN from port 0x80. Under KVM the most expensive kind of exit: out of the "
        "guest, through the host kernel, into QEMU and all the way back. Under TCG QEMU is there "
        "already, so that emulation is faster here than hardware assistance, as a software VMM "
        "was in 2006. A container has no right to touch ports at all.",
        references=(ADAMS, AMD),
    ),
    Workload(
        name="cpuid",
        title="CPUID",
        group=Group.EXITS,
        unit="ns",
        mechanism="The instruction that must always leave the guest: the hypervisor decides what "
        "the guest's processor is. KVM answers in the host kernel, so this is the price of one "
        "plain exit. TCG calls a function. Where the host is itself a VM, it pays an exit too.",
        references=(ADAMS, AMD),
    ),
    Workload(
        name="disk-random",
        title="disk, 4 KiB at random, one at a time",
        group=Group.DISK,
        unit="ns",
        mechanism="An emulated AHCI controller is told what to do by several writes to device "
        "registers, each an exit, and reports back by an interrupt that is acknowledged by "
        "another. virtio-blk puts the request into a ring in shared memory and knocks once. "
        "O_DIRECT in the guest and, where the store's file system takes it, on the host: no page "
        "cache answers. A container reads the host's file.",
        references=(RUSSELL, VIRTIO, FELTER),
    ),
    Workload(
        name="disk-sequential",
        title="disk, 1 MiB in a row",
        group=Group.DISK,
        unit="MiB/s",
        mechanism="Large requests spread the cost of the exits over many bytes, which is why "
        "emulated and virtio devices come close, and why all come close to the host.",
        references=(FELTER, VIRTIO),
    ),
    Workload(
        name="net-round-trip",
        title="network, one byte there and back",
        group=Group.NETWORK,
        unit="ns",
        mechanism="Every packet wakes the other side: an exit to send, an interrupt to receive, "
        "twice. With user networking the packets also pass SLIRP, a TCP stack inside QEMU, which "
        "is then most of this number; a bridge with vhost is another world. On the host it is the "
        "loopback interface, in a container a pair of veth cards, where there is one.",
        references=(RUSSELL, FELTER),
    ),
    Workload(
        name="net-receive",
        title="network, into the guest",
        group=Group.NETWORK,
        unit="MiB/s",
        mechanism="The emulated card hands over frame by frame, with registers read and written "
        "for each batch; virtio-net takes large segments (checksums and segmentation are left "
        "out altogether) from a ring. With user networking SLIRP, a single thread, bounds both.",
        references=(RUSSELL, VIRTIO),
    ),
    Workload(
        name="net-send",
        title="network, out of the guest",
        group=Group.NETWORK,
        unit="MiB/s",
        mechanism="As for receiving; how far apart emulated and virtio cards are depends on the "
        "emulation's code, on direction and on size, and not on a law: published ratios go from "
        "1.2 to 77.",
        references=(RUSSELL, VIRTIO),
    ),
)

_OUTSIDE = (
    Workload(
        name="start-vmm",
        title="start: hypervisor or runtime",
        group=Group.START,
        unit="s",
        mechanism="Libvirt checks the machine, builds a command line, makes namespace and cgroups, "
        "starts QEMU and asks it dozens of questions before the first guest instruction. The "
        "container's runtime makes namespaces and cgroups and becomes the program. On the host it "
        "is fork and exec.",
        references=(FIRECRACKER,),
        tool="vmctl",
    ),
    Workload(
        name="start-firmware",
        title="start: firmware and loading",
        group=Group.START,
        unit="s",
        mechanism="SeaBIOS finds the devices, takes the kernel from QEMU and jumps into it; ends "
        "when the kernel's own clock begins to run. Only a VM has this.",
        references=(FIRECRACKER,),
        tool="vmctl",
    ),
    Workload(
        name="start-kernel",
        title="start: kernel",
        group=Group.START,
        unit="s",
        mechanism="The guest's kernel sets up memory, processors and timers, and unpacks the "
        "initramfs: mostly pure computing, so TCG's factor shows. Only a VM has a kernel of its "
        "own to start.",
        references=(FIRECRACKER,),
        tool="vmctl",
    ),
    Workload(
        name="start-user-space",
        title="start: user space, until ready",
        group=Group.START,
        unit="s",
        mechanism="Drivers are loaded, and each looks at its device: more devices and slower ones "
        "(AHCI, e1000e) take longer than virtio; then the network's address is awaited.",
        references=(FIRECRACKER,),
        tool="vmctl",
    ),
    Workload(
        name="start-total",
        title="start: until the job's first line",
        group=Group.START,
        unit="s",
        mechanism="All of the above and the way to the job: what somebody waits for.",
        references=(FIRECRACKER,),
        tool="vmctl",
    ),
    Workload(
        name="host-cpu",
        title="host CPU seconds, start to end of job",
        group=Group.PRICE,
        unit="s",
        mechanism="CPU time of the QEMU process with all its threads (translation, device "
        "emulation, I/O threads), or of the container's or host's processes. The job runs for a "
        "fixed time, so more here means work done beside it.",
        tool="vmctl",
    ),
    Workload(
        name="host-memory",
        title="memory beyond the guest's own",
        group=Group.PRICE,
        unit="MiB",
        mechanism="What QEMU has in memory besides the guest's RAM: its program, device models, "
        "and under TCG the cache of translated code. A container has no such process.",
        references=(FIRECRACKER,),
        tool="vmctl",
    ),
)

WORKLOADS: tuple[Workload, ...] = tuple(
    workload
    for group in Group
    for workload in (*_PROBE, *standard.STANDARD, *_OUTSIDE)
    if workload.group is group
)
BY_NAME = {workload.name: workload for workload in WORKLOADS}


def named(words: Iterable[str], *, quick: bool = False) -> tuple[Workload, ...]:
    """Return workloads by their names or groups, in the catalogue's order; all for no words.

    `quick` leaves out what takes long, but for what is named by its own name.

    Raises UsageError for a word that is neither.
    """
    wanted: set[str] = set()
    words = tuple(words)
    for word in words:
        found = {each.name for each in WORKLOADS if word in (each.name, each.group.value)}
        if not found:
            raise errors.UsageError(
                f"There is no workload '{word}'.",
                hint="There are: "
                + ", ".join(
                    [*(group.value for group in Group), *(each.name for each in WORKLOADS)]
                ),
            )
        wanted |= found
    if not wanted:
        wanted = set(BY_NAME)
    asked = set(words)
    return tuple(
        each
        for each in WORKLOADS
        if each.name in asked or (each.name in wanted and (each.quick or not quick))
    )


def probed(workloads: Sequence[Workload]) -> list[str]:
    """Return the names of those that the probe measures."""
    return [workload.name for workload in workloads if workload.tool == "probe"]
