"""Which kind of backup is made, and what libvirt is told."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET

import pytest

from tests import replay
from vmctl import errors
from vmctl.machine import backups
from vmctl.machine.model import DiskFormat, Machine
from vmctl.machine.state import State
from vmctl.machine.xml import backup as orders
from vmctl.store.backups import LONGEST, Backup, Copy, Kind

UUID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"


@pytest.fixture
def machine() -> Machine:
    around = replay.surroundings(replay.host("kvm-intel-fine"))
    return replay.machines(replay.TEMPLATES / "disks.yaml", around)[0]


def backup(machine: Machine, number: int, **changes: object) -> Backup:
    made = Backup(
        name=f"20260101-{number:06d}",
        machine=machine.name,
        uuid=UUID,
        kind=Kind.FULL,
        checkpoint=f"vmctl-x-{number}",
        disks=tuple(
            Copy(name=disk.name, file=f"{disk.name}.qcow2", size=1, bytes=1, digest="")
            for disk in machine.disks
        ),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_the_first_is_full_without_a_word(machine: Machine) -> None:
    decision = backups.decide(machine, [], uuid=UUID, active=True)
    assert (decision.kind, decision.why) == (Kind.FULL, "")


def test_what_changed_is_counted_from_the_last_that_is_known(machine: Machine) -> None:
    before = [backup(machine, 1), backup(machine, 2), backup(machine, 3, checkpoint="")]
    decision = backups.decide(
        machine, before, uuid=UUID, active=True, checkpoints={"vmctl-x-1", "vmctl-x-2"}
    )
    assert (decision.kind, decision.parent, decision.since) == (
        Kind.INCREMENTAL,
        before[1].name,
        "vmctl-x-2",
    )
    stopped = backups.decide(machine, before, uuid=UUID, active=False)
    assert (stopped.parent, stopped.since) == (before[2].name, "")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"uuid": "another"}, "earlier machine"),
        ({"checkpoint": "vmctl-x-gone"}, "not known"),
        ({"checkpoint": ""}, "not known"),
        ({"disks": ()}, "other disks"),
    ],
)
def test_what_makes_it_full(machine: Machine, changes: dict[str, object], why: str) -> None:
    before = [backup(machine, 1, **changes)]
    decision = backups.decide(
        machine, before, uuid=UUID, active=True, checkpoints={"vmctl-x-1", ""}
    )
    assert decision.kind is Kind.FULL
    assert why in decision.why
    asked = backups.decide(machine, [backup(machine, 1)], uuid=UUID, active=False, full=True)
    assert (asked.kind, asked.why) == (Kind.FULL, "")


def test_a_chain_ends_somewhere(machine: Machine) -> None:
    chain = [backup(machine, 1)]
    while len(chain) < LONGEST:
        chain.append(backup(machine, len(chain) + 1, parent=chain[-1].name))
        decision = backups.decide(machine, chain[:-1], uuid=UUID, active=False)
        assert decision.kind is Kind.INCREMENTAL
    assert backups.decide(machine, chain, uuid=UUID, active=False).kind is Kind.FULL
    # A chain that lost a part is no longer added to.
    assert backups.decide(machine, chain[1:3], uuid=UUID, active=False).kind is Kind.FULL


@pytest.mark.parametrize("state", [State.SAVED, State.STOPPING, State.CRASHED, State.FAILED])
def test_states_that_are_refused(machine: Machine, state: State) -> None:
    with pytest.raises(errors.ConflictError) as refused:
        backups.refuse(machine, state)
    assert refused.value.hint


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED, State.STOPPED])
def test_machines_that_are_refused(machine: Machine, state: State) -> None:
    backups.refuse(machine, state)
    disk = machine.disks[0]
    for wrong in (
        dataclasses.replace(machine, disks=()),
        dataclasses.replace(machine, tpm=True),
        dataclasses.replace(machine, disks=(dataclasses.replace(disk, external=True),)),
        dataclasses.replace(machine, disks=(dataclasses.replace(disk, format=DiskFormat.RAW),)),
    ):
        with pytest.raises(errors.UsageError) as refused:
            backups.refuse(wrong, state)
        assert refused.value.hint


LIVE = """<domain><devices>
<disk type='file'><source file='/a&amp;b.qcow2'/><target dev='vda'/></disk>
<disk type='file'><source file='/seed.iso'/><target dev='vdb'/><readonly/></disk>
<disk type='file' device='cdrom'><target dev='sda'/></disk>
</devices></domain>"""


def test_only_the_disks_meant_are_taken_along() -> None:
    every = orders.targets(LIVE)
    assert every == {"/a&b.qcow2": "vda", "/seed.iso": "vdb", ":sda": "sda"}
    copies = {"/a&b.qcow2": "/copy<1>.qcow2"}
    order = ET.fromstring(orders.write(every, copies, "since"))
    assert order.findtext("incremental") == "since"
    taken = {each.get("name"): each.get("backup") for each in order.iterfind("disks/disk")}
    assert taken == {"vda": "yes", "vdb": "no", "sda": "no"}
    target = order.find("disks/disk/target")
    assert target is not None
    assert target.get("file") == "/copy<1>.qcow2"
    assert ET.fromstring(orders.write(every, copies)).find("incremental") is None
    checkpoint = ET.fromstring(orders.write_checkpoint("it", every, copies))
    assert checkpoint.findtext("name") == "it"
    marked = {each.get("name"): each.get("checkpoint") for each in checkpoint.iterfind(".//disk")}
    assert marked == {"vda": "bitmap", "vdb": "no", "sda": "no"}


def test_each_directory_has_checkpoints_of_its_own() -> None:
    one, other = map(backups.checkpoints_of, ("/a/web", "/b/web"))
    assert one != other
    assert one.startswith(backups.PREFIX) and one == backups.checkpoints_of("/a/web")
