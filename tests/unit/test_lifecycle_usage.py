"""Rates come from two looks at the same run of a machine, and from nothing else."""

import dataclasses

import pytest

from vmctl.hypervisor.statistics import Counters, DiskCounters, NicCounters
from vmctl.lifecycle import usage
from vmctl.lifecycle.roster import Row
from vmctl.lifecycle.usage import Sample
from vmctl.machine.state import State

ROW = Row(
    name="web",
    project="shop",
    state=State.RUNNING,
    reason="",
    ready=True,
    mode="paravirt",
    image="tiny",
    cpus=1,
    memory=1 << 30,
    spec="/srv/web.yaml",
)
DISK = DiskCounters(
    device="vda",
    read_requests=10,
    read_bytes=1000,
    write_requests=5,
    written_bytes=500,
    allocated=4096,
)
NIC = NicCounters(
    device="vnet0", received_bytes=100, received_packets=1, sent_bytes=50, sent_packets=1
)
BEFORE = Counters(
    name="web",
    uuid="u",
    id=7,
    at=100.0,
    cpu_seconds=3.0,
    cpus=2,
    memory=1 << 30,
    used=1 << 20,
    resident=1 << 29,
    disks=(DISK,),
    nics=(NIC,),
)
AFTER = dataclasses.replace(
    BEFORE,
    at=102.0,
    cpu_seconds=6.0,
    disks=(dataclasses.replace(DISK, read_bytes=5000, read_requests=30),),
    nics=(dataclasses.replace(NIC, sent_bytes=250),),
)


def measured(before: Counters | None, after: Counters | None) -> usage.Usage:
    first = [Sample(row=ROW, counters=before)]
    return usage.between(first, [Sample(row=ROW, counters=after)])[0]


def test_rates_are_growth_over_time():
    found = measured(BEFORE, AFTER)
    assert found.seconds == 2.0
    assert found.cpu == pytest.approx(150.0)
    assert (found.disk_read_rate, found.disk_reads) == (2000.0, 10.0)
    assert (found.disk_write_rate, found.disk_writes) == (0.0, 0.0)
    assert (found.receive_rate, found.send_rate) == (0.0, 100.0)
    assert (found.cpus, found.memory, found.used) == (2, 1 << 30, 1 << 20)


def test_a_machine_that_was_started_again_has_no_rates_yet():
    found = measured(BEFORE, dataclasses.replace(AFTER, id=8))
    assert found.cpu is None
    assert found.disk_read_rate is None
    assert found.memory == 1 << 30


def test_a_machine_that_does_not_run_has_no_numbers():
    found = measured(BEFORE, None)
    assert (found.cpu, found.memory, found.resident) == (None, None, None)
    assert found.cpus == 1


def test_a_machine_that_was_not_there_before():
    found = usage.between([], [Sample(row=ROW, counters=AFTER)])[0]
    assert found.cpu is None


def test_a_disk_that_is_plugged_in_begins_at_nothing():
    plugged = dataclasses.replace(DISK, device="vdb", read_bytes=300)
    found = measured(BEFORE, dataclasses.replace(AFTER, disks=(*AFTER.disks, plugged)))
    assert found.disk_read_rate == (4000 + 300) / 2


def test_counters_that_begin_anew_never_make_a_negative_rate():
    again = dataclasses.replace(DISK, read_bytes=10)
    assert measured(BEFORE, dataclasses.replace(AFTER, disks=(again,))).disk_read_rate == 0.0


def test_without_cards_that_libvirt_sees_there_are_no_network_rates():
    found = measured(
        dataclasses.replace(BEFORE, nics=()), dataclasses.replace(AFTER, nics=(), cpu_seconds=None)
    )
    assert (found.receive_rate, found.send_rate, found.cpu) == (None, None, None)
