"""Workloads that standard tools measure; `tools` knows how they are asked."""

from __future__ import annotations

from vmctl.lab.workload import ADAMS, BELLARD, FELTER, RUSSELL, Group, Workload

STANDARD = (
    Workload(
        name="sysbench-cpu",
        title="sysbench cpu: prime numbers",
        group=Group.PROCESSOR,
        unit="ops/s",
        mechanism="Divisions and branches in a loop, with next to no memory. A figure of sysbench "
        "is comparable with one of the same build only; here it is the very same file everywhere.",
        references=(FELTER,),
        tool="sysbench",
        quick=False,
    ),
    Workload(
        name="stress-ng-cpu",
        title="stress-ng: 64-bit integers",
        group=Group.PROCESSOR,
        unit="ops/s",
        mechanism="Arithmetic and logic on 64-bit integers. Its operations are bogus by its own "
        "word: good for ratios on one host, and for nothing else.",
        references=(BELLARD,),
        tool="stress-ng",
        quick=False,
    ),
    Workload(
        name="sysbench-memory",
        title="sysbench memory: writes of 1 MiB",
        group=Group.MEMORY,
        unit="MiB/s",
        mechanism="Writes the same MiB again and again, which stays in the processor's cache: "
        "stores, not memory. TCG looks the address of each store up.",
        references=(FELTER,),
        tool="sysbench",
        quick=False,
    ),
    Workload(
        name="hackbench",
        title="hackbench: 8 tasks, 3200 messages",
        group=Group.KERNEL,
        unit="s",
        mechanism="Processes that send each other messages over sockets: system calls, wake-ups "
        "and switches, as in a busy server. What page tables and TLBs cost, it shows.",
        references=(ADAMS,),
        tool="hackbench",
        quick=False,
    ),
    Workload(
        name="fio-random-1",
        title="fio: 4 KiB at random, one at a time",
        group=Group.DISK,
        unit="ns",
        mechanism="As the probe's own row, by the tool that everybody uses; fio's own work is in "
        "it, which TCG multiplies.",
        references=(FELTER, RUSSELL),
        tool="fio",
        quick=False,
    ),
    Workload(
        name="fio-random-32",
        title="fio: 4 KiB at random, 32 at a time",
        group=Group.DISK,
        unit="ops/s",
        mechanism="With many requests under way virtio-blk is told of several with one knock and "
        "reports several with one interrupt. AHCI has a queue of 32 too (NCQ), each command of "
        "which is set up in registers.",
        references=(FELTER, RUSSELL),
        tool="fio",
        quick=False,
    ),
    Workload(
        name="fio-sequential",
        title="fio: 1 MiB in a row",
        group=Group.DISK,
        unit="MiB/s",
        mechanism="As the probe's own row: the exits are spread over many bytes.",
        references=(FELTER,),
        tool="fio",
        quick=False,
    ),
    Workload(
        name="sockperf",
        title="sockperf: TCP ping-pong",
        group=Group.NETWORK,
        unit="ns",
        mechanism="A request and its response, the median packet of a database or a cache; as the "
        "probe's own row, mostly SLIRP in a VM with user networking.",
        references=(FELTER,),
        tool="sockperf",
        quick=False,
    ),
    Workload(
        name="iperf3-receive",
        title="iperf3: into the guest",
        group=Group.NETWORK,
        unit="MiB/s",
        mechanism="One stream, bulk. The direction matters: to receive, the guest must be "
        "interrupted; to send, it must exit.",
        references=(FELTER,),
        tool="iperf3",
        quick=False,
    ),
    Workload(
        name="iperf3-send",
        title="iperf3: out of the guest",
        group=Group.NETWORK,
        unit="MiB/s",
        mechanism="One stream, bulk, the other way round: the card must be told of each batch.",
        references=(FELTER,),
        tool="iperf3",
        quick=False,
    ),
)
