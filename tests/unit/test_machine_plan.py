from __future__ import annotations

import dataclasses
import pathlib

import pytest

from tests import replay
from vmctl import errors, sizes
from vmctl.machine import compare, plan
from vmctl.machine.compare import Effect
from vmctl.machine.model import Disk, Forward, Machine
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
    text = domain.write(machine, machine_type="pc-q35-7.2").text()
    fields = {"name": machine.name, "state": state, "current": domain.read(text), "files": True}
    return Observed(**{**fields, **changes})  # type: ignore[arg-type]


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


@pytest.mark.parametrize("factor", [0.5, 2])
def test_disks_do_not_change_size(machine: Machine, factor: float) -> None:
    disk = machine.disks[0]
    wanted = dataclasses.replace(
        machine, disks=(dataclasses.replace(disk, size=int(disk.size * factor)), *machine.disks[1:])
    )
    with pytest.raises(errors.UsageError, match=disk.name):
        plan.plan_one(wanted, seen(machine))


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
