from __future__ import annotations

import dataclasses
import pathlib

import pytest

from tests import replay
from vmctl import errors, sizes
from vmctl.machine import compare, comparison, plan
from vmctl.machine.comparison import Verdict
from vmctl.machine.effects import Effect
from vmctl.machine.model import Disk, Display, Forward, Machine, Mode, NicKind
from vmctl.machine.observed import Observed
from vmctl.machine.plan import Action
from vmctl.machine.state import State
from vmctl.machine.xml import domain


@pytest.fixture
def machine() -> Machine:
    around = replay.surroundings(replay.host("kvm-intel-fine"))
    return replay.machines(replay.TEMPLATES / "disks.yaml", around)[0]


def seen(machine: Machine, state: State = State.STOPPED, **changes: object) -> Observed:
    """Return the machine as libvirt would show it."""
    read = domain.read(domain.write(machine, machine_type="pc-q35-7.2").text())
    fields: dict[str, object] = {"name": machine.name, "state": state, "current": read}
    if state.active:
        fields["live"] = dataclasses.replace(read, spare_ports=2)
    return Observed(**{**fields, "files": True, **changes})  # type: ignore[arg-type]


def test_nothing_there(machine: Machine) -> None:
    todo = plan.plan_one(machine, Observed(name=machine.name))
    assert todo.actions == (
        Action.FILES,
        Action.DISKS,
        Action.DEFINE,
        Action.START,
        Action.FORWARD,
        Action.WAIT,
    )


def test_running_and_the_same(machine: Machine) -> None:
    todo = plan.plan_one(machine, seen(machine, State.RUNNING))
    assert todo.actions == (Action.FORWARD, Action.WAIT)
    assert (todo.waiting, todo.drift) == ((), ())


@pytest.mark.parametrize(
    ("state", "action"),
    [(State.STOPPED, Action.START), (State.SAVED, Action.START), (State.PAUSED, Action.RESUME)],
)
def test_made_but_not_running(machine: Machine, state: State, action: Action) -> None:
    todo = plan.plan_one(machine, seen(machine, state))
    assert todo.actions == (action, Action.FORWARD, Action.WAIT)


def test_a_changed_spec_is_applied_to_a_stopped_machine(machine: Machine) -> None:
    wanted = dataclasses.replace(machine, cpus=2, cpus_max=2)
    todo = plan.plan_one(wanted, seen(machine))
    assert Action.DEFINE in todo.actions
    assert Action.START in todo.actions
    assert todo.waiting == ()


def test_a_running_machine_is_never_restarted_for_a_change(machine: Machine) -> None:
    wanted = dataclasses.replace(machine, cpus=2, cpus_max=2, autostart=True)
    todo = plan.plan_one(wanted, seen(machine, State.RUNNING))
    assert Action.START not in todo.actions
    assert [change.path for change in todo.waiting] == ["cpus", "cpus_max"]
    assert {change.effect for change in todo.waiting} == {Effect.NEXT_START}


def test_another_image_waits_for_a_new_machine(machine: Machine) -> None:
    wanted = dataclasses.replace(machine, image=replay.DISTRIBUTION)
    todo = plan.plan_one(wanted, seen(machine))
    assert Action.DEFINE not in todo.actions
    assert todo.waiting[0].effect is Effect.RE_CREATION


def test_hand_edits_are_shown_and_left(machine: Machine) -> None:
    edited = domain.write(machine).text().replace("<on_crash>preserve", "<on_crash>destroy")
    edited = edited.replace("</devices>", "<watchdog model='i6300esb' action='reset'/></devices>")
    observed = seen(machine, current=domain.read(edited))
    todo = plan.plan_one(dataclasses.replace(machine, cpus=3, cpus_max=3), observed)
    assert Action.DEFINE not in todo.actions
    assert any("watchdog" in drift for drift in todo.drift)
    assert any("on_crash" in drift for drift in todo.drift)


def test_a_field_changed_by_hand_is_drift(machine: Machine) -> None:
    edited = domain.write(machine).text()
    kib = machine.memory >> 10
    edited = edited.replace(f">{kib}<", f">{kib * 2}<")
    todo = plan.plan_one(machine, seen(machine, current=domain.read(edited)))
    assert any(drift.startswith("memory") for drift in todo.drift)
    assert Action.DEFINE not in todo.actions


def test_a_hand_edit_of_the_definition_is_none_of_what_runs(machine: Machine) -> None:
    kib = machine.memory >> 10
    edited = domain.read(domain.write(machine).text().replace(f">{kib}<", f">{kib * 2}<"))
    observed = seen(machine, State.RUNNING, current=edited)
    todo = plan.plan_one(machine, observed)
    assert {drift.partition(":")[0] for drift in todo.drift} == {"memory", "memory_max"}
    assert (todo.live, todo.waiting) == ((), ())
    assert comparison.compare(machine, observed).changes == ()
    assert not any(drift.startswith("while") for drift in plan.drifted(observed))


def test_foreign_domains_are_refused(machine: Machine) -> None:
    foreign = "<domain type='qemu'><name>x</name><memory>1024</memory></domain>"
    with pytest.raises(errors.ConflictError, match="did not make"):
        plan.plan_one(machine, seen(machine, current=domain.read(foreign)))


def test_machines_of_other_projects_and_stores_are_refused(machine: Machine) -> None:
    other = dataclasses.replace(machine, project="other")
    with pytest.raises(errors.ConflictError, match="project 'other'"):
        plan.plan_one(machine, seen(other))
    elsewhere = dataclasses.replace(machine, console_log="/elsewhere/console.log")
    with pytest.raises(errors.ConflictError, match="another store"):
        plan.plan_one(machine, seen(elsewhere))


@pytest.mark.parametrize("state", [State.CRASHED, State.FAILED])
def test_a_broken_guest_is_reported_not_restarted(machine: Machine, state: State) -> None:
    with pytest.raises(errors.GuestError) as failure:
        plan.plan_one(machine, seen(machine, state, reason="the guest panicked"))
    assert failure.value.exit_code == 8
    assert "panicked" in failure.value.message
    assert "restart --force" in failure.value.hint


def test_an_interrupted_removal_is_finished_first(machine: Machine) -> None:
    todo = plan.plan_one(machine, seen(machine, intent="down"))
    assert todo.actions[0] is Action.FINISH_REMOVAL
    assert Action.DEFINE in todo.actions


@pytest.mark.parametrize("state", [State.STOPPED, State.RUNNING])
def test_a_definition_that_was_not_recorded_is_written_again(
    machine: Machine, state: State
) -> None:
    todo = plan.plan_one(machine, seen(machine, state, intent="up"))
    assert Action.DEFINE in todo.actions
    assert (Action.START in todo.actions) == (state is State.STOPPED)


def resized(machine: Machine, factor: float) -> Machine:
    disk, *others = machine.disks
    larger = dataclasses.replace(disk, size=int(disk.size * factor))
    return dataclasses.replace(machine, disks=(larger, *others))


@pytest.mark.parametrize("state", [State.STOPPED, State.RUNNING])
def test_a_disk_never_shrinks(machine: Machine, state: State) -> None:
    wanted = resized(machine, 0.5)
    with pytest.raises(errors.UsageError, match="never shrinks"):
        plan.plan_one(wanted, seen(machine, state))
    (shown,) = comparison.compare(wanted, seen(machine, state)).changes
    assert shown.effect is Effect.RE_CREATION


def test_a_disk_grows(machine: Machine) -> None:
    todo = plan.plan_one(resized(machine, 2), seen(machine, State.RUNNING))
    assert [change.path for change in todo.live] == [f"disks[{machine.disks[0].name}].size"]
    assert Action.CHANGE in todo.actions


def test_what_is_live_is_done_and_what_is_not_waits(machine: Machine) -> None:
    room = dataclasses.replace(machine, cpus_max=4, memory_max=machine.memory * 2)
    wanted = dataclasses.replace(
        room,
        cpus=2,
        memory=machine.memory * 2,
        description="new",
        display=Display.VNC,
        limits=dataclasses.replace(machine.limits, disk_read_iops=100),
    )
    todo = plan.plan_one(wanted, seen(room, State.RUNNING))
    paths = {change.path for change in todo.live}
    assert paths == {"cpus", "memory", "description", "resources.disk_read_iops"}
    assert [change.path for change in todo.waiting] == ["display"]
    order = [todo.actions.index(each) for each in (Action.DEFINE, Action.CHANGE, Action.WAIT)]
    assert order == sorted(order)
    assert Action.START not in todo.actions


def test_beyond_what_the_machine_was_started_with_waits(machine: Machine) -> None:
    wanted = dataclasses.replace(machine, cpus=8, cpus_max=8, memory=1 << 34, memory_max=1 << 34)
    todo = plan.plan_one(wanted, seen(machine, State.RUNNING))
    assert todo.live == ()
    assert {change.effect for change in todo.waiting} == {Effect.NEXT_START}


def test_emulated_devices_wait(machine: Machine) -> None:
    disks = tuple(dataclasses.replace(each, aio="threads") for each in machine.disks)
    full = dataclasses.replace(machine, mode=Mode.FULL, disks=disks)
    extra = Disk(name="extra", file="/x", size=1 << 30)
    card = dataclasses.replace(machine.nics[0], mac="52:54:00:00:00:01")
    wanted = dataclasses.replace(full, disks=(*full.disks, extra), nics=(*full.nics, card))
    todo = plan.plan_one(wanted, seen(full, State.RUNNING))
    assert [change.path for change in todo.live] == ["nics[52:54:00:00:00:01]"]
    assert [change.path for change in todo.waiting] == ["disks[extra]"]


def test_no_more_is_plugged_in_than_there_are_ports(machine: Machine) -> None:
    extra = tuple(Disk(name=f"d{n}", file=f"/{n}", size=1 << 30) for n in range(4))
    wanted = dataclasses.replace(machine, disks=(*machine.disks, *extra))
    todo = plan.plan_one(wanted, seen(machine, State.RUNNING))
    assert [change.path for change in todo.live] == ["disks[d0]", "disks[d1]"]
    assert [change.path for change in todo.waiting] == ["disks[d2]", "disks[d3]"]


def interrupted(machine: Machine, wanted: Machine) -> Observed:
    """Return a machine that was defined anew, and runs as it did before."""
    live = seen(machine, State.RUNNING).live
    return seen(wanted, State.RUNNING, live=live)


def test_a_kill_after_the_definition_is_finished(machine: Machine) -> None:
    wanted = resized(machine, 2)
    todo = plan.plan_one(wanted, interrupted(machine, wanted))
    assert Action.DEFINE not in todo.actions
    assert [change.path for change in todo.live] == [f"disks[{machine.disks[0].name}].size"]
    assert Action.CHANGE in todo.actions
    assert todo.drift == ()


def by_hand(machine: Machine, **changes: object) -> Observed:
    """Return a machine that somebody changed while it runs."""
    observed = seen(machine, State.RUNNING)
    assert observed.live is not None
    running = dataclasses.replace(machine, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(observed, live=dataclasses.replace(observed.live, machine=running))


def test_what_other_hands_did_to_what_runs_stays(machine: Machine) -> None:
    observed = by_hand(machine, memory=machine.memory // 2, description="mine")
    todo = plan.plan_one(machine, observed)
    assert (todo.live, Action.CHANGE in todo.actions) == ((), False)
    assert len(todo.drift) == 2
    # What the spec changes as well is the spec's again.
    wanted = dataclasses.replace(machine, description="ours")
    todo = plan.plan_one(wanted, observed)
    assert [change.path for change in todo.live] == ["description"]
    assert len(todo.drift) == 1
    assert todo.spared == {"memory"}
    todo = plan.plan_one(wanted, observed, take_over=True)
    assert {change.path for change in todo.live} == {"memory", "description"}
    assert (todo.drift, todo.spared) == ((), frozenset())


def test_taking_over_overwrites_the_definition(machine: Machine) -> None:
    edited = domain.write(machine).text().replace("<on_crash>preserve", "<on_crash>destroy")
    for state in (State.STOPPED, State.RUNNING):
        observed = seen(machine, state, current=domain.read(edited))
        assert Action.DEFINE not in plan.plan_one(machine, observed).actions
        todo = plan.plan_one(machine, observed, take_over=True)
        assert Action.DEFINE in todo.actions
        assert (todo.drift, len(todo.overwritten)) == ((), 1)


def test_a_first_boot_change_keeps_nothing_else_waiting(machine: Machine) -> None:
    seeded = dataclasses.replace(machine, seed="/seed", cloud_init="a" * 64)
    wanted = dataclasses.replace(seeded, cloud_init="b" * 64, cpus=2, cpus_max=2)
    todo = plan.plan_one(wanted, seen(seeded))
    assert Action.DEFINE in todo.actions
    assert (todo.machine.cloud_init, todo.machine.cpus) == (seeded.cloud_init, 2)
    assert [change.path for change in todo.waiting] == ["cloud_init"]
    # And it is told again, but not done again.
    again = plan.plan_one(wanted, seen(todo.machine))
    assert Action.DEFINE not in again.actions
    assert [change.path for change in again.waiting] == ["cloud_init"]


def test_media_stay_in_their_drives(machine: Machine) -> None:
    before = dataclasses.replace(machine, cdroms=("/a", "/b"))
    found = compare.differences(before, dataclasses.replace(machine, cdroms=("/b", "/c")))
    assert [(each.before, each.after, each.effect) for each in found] == [("/a", "/c", Effect.NOW)]
    found = compare.differences(before, dataclasses.replace(machine, cdroms=("/b",)))
    told = [(each.path, each.before, each.after) for each in found]
    assert told == [("cdroms[/a]", "/a", ""), ("cdrom drives", "2", "1")]
    ejected = compare.carried(before, found[0], machine)
    assert sorted(ejected.cdroms) == ["", "/b"]


def test_each_difference_carried_leaves_none(machine: Machine) -> None:
    extra = Disk(name="extra", file="/x", size=1 << 30)
    wanted = dataclasses.replace(
        resized(machine, 2),
        disks=(*resized(machine, 2).disks[:1], extra),
        forwards=(Forward(host=1, guest=2),),
        nics=(dataclasses.replace(machine.nics[0], kind=NicKind.BRIDGE, bridge="br0"),),
        limits=dataclasses.replace(machine.limits, cpu_quota=50),
        needs=("other",),
        memory=machine.memory // 2,
    )
    running = machine
    for each in compare.differences(machine, wanted):
        running = compare.carried(running, each, wanted)
    assert compare.differences(running, wanted) == ()


def test_a_difference_is_told_without_raising(machine: Machine) -> None:
    absent = comparison.compare(machine, Observed(name=machine.name))
    assert (absent.verdict, absent.differs) == (Verdict.CREATE, True)
    same = comparison.compare(machine, seen(machine, State.RUNNING))
    assert (same.verdict, same.differs) == (Verdict.SAME, False)
    crashed = comparison.compare(machine, seen(machine, State.CRASHED, reason="panicked"))
    assert crashed.verdict is Verdict.REFUSED
    assert "panicked" in crashed.refusal
    other = dataclasses.replace(machine, project="other")
    assert "project" in comparison.compare(machine, seen(other)).refusal


def test_differences_go_by_identity_not_by_position(machine: Machine) -> None:
    first, second = machine.disks[0], Disk(name="extra", file="/x", size=1 << 30)
    before = dataclasses.replace(machine, disks=(first, second))
    after = dataclasses.replace(
        machine, disks=(second, dataclasses.replace(first, keep=not first.keep))
    )
    paths = [change.path for change in compare.differences(before, after)]
    assert paths == [f"disks[{first.name}].keep"]
    gone = dataclasses.replace(machine, disks=(second,))
    (change,) = compare.differences(before, gone)
    assert str(change) == f"disks[{first.name}]: {sizes.text(first.size)} -> nothing"


def test_forwards_are_told_one_by_one(machine: Machine) -> None:
    before = dataclasses.replace(machine, forwards=(Forward(host=1, guest=2),))
    after = dataclasses.replace(machine, forwards=(Forward(host=1, guest=3),))
    (change,) = compare.differences(before, after)
    assert (change.before, change.after, change.effect) == ("2", "3", Effect.NOW)


def test_sizes_read_as_they_are_written() -> None:
    assert [sizes.text(value) for value in (1 << 30, 512 << 20, 1 << 40, 1000)] == [
        "1GiB",
        "512MiB",
        "1TiB",
        "1000 bytes",
    ]


def test_orphans_are_part_of_the_plan(machine: Machine) -> None:
    todo = plan.plan([machine], {machine.name: Observed(name=machine.name)}, ["old"])
    assert todo.orphans == ("old",)
    assert isinstance(pathlib.Path(machine.console_log), pathlib.Path)
