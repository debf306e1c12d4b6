"""Which kind of snapshot is possible, and when memory fits into a running QEMU."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from tests import replay
from vmctl import errors
from vmctl.machine import snapshots
from vmctl.machine.model import DiskFormat, Machine, Mode, Mount
from vmctl.machine.state import State
from vmctl.machine.xml import domain
from vmctl.store.layout import MachineFiles
from vmctl.store.snapshots import Kind


@pytest.fixture
def machine() -> Machine:
    around = replay.surroundings(replay.host("kvm-intel-fine"))
    return replay.machines(replay.TEMPLATES / "disks.yaml", around)[0]


def changed(machine: Machine, **changes: object) -> Machine:
    return dataclasses.replace(machine, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "wish", "kind"),
    [
        (State.RUNNING, None, Kind.MEMORY),
        (State.PAUSED, None, Kind.MEMORY),
        (State.RUNNING, Kind.MEMORY, Kind.MEMORY),
        (State.RUNNING, Kind.DISKS, Kind.DISKS),
        (State.STOPPED, None, Kind.OFFLINE),
        (State.STOPPED, Kind.DISKS, Kind.OFFLINE),
    ],
)
def test_the_kind_follows_the_state(
    machine: Machine, state: State, wish: Kind | None, kind: Kind
) -> None:
    assert snapshots.decide(machine, state, wish).kind is kind


def test_a_stopped_machine_has_no_memory(machine: Machine) -> None:
    with pytest.raises(errors.UsageError, match="no memory") as refused:
        snapshots.decide(machine, State.STOPPED, Kind.MEMORY)
    assert f"vmctl start {machine.name}" in refused.value.hint


@pytest.mark.parametrize("state", [State.SAVED, State.STOPPING, State.CRASHED, State.FAILED])
def test_states_that_are_refused(machine: Machine, state: State) -> None:
    with pytest.raises(errors.ConflictError) as refused:
        snapshots.decide(machine, state)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("changes", "plugged", "why"),
    [
        ({"mounts": (Mount(host="/srv", guest="/src"),)}, (), "'/src'"),
        ({"nested": True, "mode": Mode.PARAVIRT}, (), "nested"),
        ({}, ("domain/devices/disk (vdx)",), "vdx"),
    ],
)
def test_memory_is_left_out_and_that_is_said(
    machine: Machine, changes: dict[str, object], plugged: tuple[str, ...], why: str
) -> None:
    machine = changed(machine, **changes)
    decision = snapshots.decide(machine, State.RUNNING, None, plugged)
    assert (decision.kind, why in decision.why) == (Kind.DISKS, True)
    assert "--disks" in decision.way_out
    assert snapshots.decide(machine, State.RUNNING, Kind.DISKS, plugged).why == ""
    with pytest.raises(errors.UsageError) as refused:
        snapshots.decide(machine, State.RUNNING, Kind.MEMORY, plugged)
    assert why in refused.value.message


def test_an_emulated_lab_host_keeps_its_memory(machine: Machine) -> None:
    machine = changed(machine, nested=True, mode=Mode.TCG_VIRTIO)
    assert snapshots.decide(machine, State.RUNNING).kind is Kind.MEMORY


def test_a_raw_disk_is_refused(machine: Machine) -> None:
    disks = (dataclasses.replace(machine.disks[0], format=DiskFormat.RAW), *machine.disks[1:])
    with pytest.raises(errors.UsageError, match="raw") as refused:
        snapshots.decide(changed(machine, disks=disks), State.RUNNING)
    assert "qemu-img convert" in refused.value.hint


def test_without_disks_there_is_only_memory(machine: Machine, tmp_path: pathlib.Path) -> None:
    machine = changed(machine, disks=())
    assert snapshots.decide(machine, State.RUNNING).kind is Kind.MEMORY
    for state, wish in ((State.STOPPED, None), (State.RUNNING, Kind.DISKS)):
        with pytest.raises(errors.UsageError, match="no disk"):
            snapshots.decide(machine, state, wish)
    carriers = snapshots.carriers(machine, MachineFiles(tmp_path))
    assert [each.name for each in carriers] == ["memory"]


def test_every_disk_carries_a_snapshot(machine: Machine, tmp_path: pathlib.Path) -> None:
    found = snapshots.carriers(machine, MachineFiles(tmp_path))
    assert [each.name for each in found] == [disk.name for disk in machine.disks]


LIVE = """<domain type='kvm' id='{run}'><name>web</name><memory unit='KiB'>{memory}</memory>
<os><type machine='pc-q35-7.2'>hvm</type></os>
<devices>
<disk type='file'><source file='/a/{run}.qcow2' index='{run}'/><target dev='vda' bus='virtio'/>
<address type='pci' bus='{bus}'/></disk>
<interface type='network'><source portid='{run}'/><target dev='vnet{run}'/></interface>
<console type='pty' tty='/dev/pts/{run}'><source path='/dev/pts/{run}'/></console>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='{agent}'/></channel>
</devices></domain>"""


def live(**changes: object) -> str:
    return LIVE.format(**{"run": 1, "memory": 1024, "bus": "0x03", "agent": "connected", **changes})


def test_the_same_hardware_in_another_run() -> None:
    assert snapshots.hardware(live()) == snapshots.hardware(live(run=7, agent="disconnected"))


@pytest.mark.parametrize("changes", [{"memory": 2048}, {"bus": "0x04"}])
def test_other_hardware(changes: dict[str, object]) -> None:
    assert snapshots.hardware(live()) != snapshots.hardware(live(**changes))


def test_what_vmctl_writes_differs_where_the_hardware_does(machine: Machine) -> None:
    text = domain.write(machine).text()
    assert snapshots.hardware(text) == snapshots.hardware(text)
    more = domain.write(changed(machine, cpus=3, cpus_max=3)).text()
    assert snapshots.hardware(text) != snapshots.hardware(more)


def test_the_agent_is_there() -> None:
    assert snapshots.agent_connected(live())
    assert not snapshots.agent_connected(live(agent="disconnected"))
