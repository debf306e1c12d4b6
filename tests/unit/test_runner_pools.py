"""Pools that nobody supervises, what they may take, and which machines are theirs."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import ClassVar

import pytest

from tests import replay
from vmctl import errors
from vmctl.cli import context as contexts
from vmctl.cli import pool as commands
from vmctl.deadline import Deadline
from vmctl.machine.model import Machine
from vmctl.machine.observed import Observed
from vmctl.machine.xml.domain import ReadBack
from vmctl.runner.pooling import lease, pool, pools, slot, template
from vmctl.runner.pooling.pool import Pool
from vmctl.store import records
from vmctl.store.layout import Layout

SOON = Deadline.after(0.02)


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    (tmp_path / "locks").mkdir()
    return Layout(tmp_path)


def a_pool(**changes: object) -> Pool:
    found = Pool(name="ci", spec="/x.yaml", uri="qemu:///system", slots=2)
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]


@pytest.fixture
def machine() -> Machine:
    around = replay.surroundings(replay.host("kvm-intel-fine"))
    return replay.machines(replay.TEMPLATES / "hello.yaml", around)[0]


class Removing:
    """Stands for a Workshop that removes machines."""

    removed: ClassVar[list[int]] = []
    foreign = 0

    def __init__(self, _layout: Layout, _pool: Pool, _say: object) -> None:
        pass

    def remove(self, number: int) -> str:
        self.removed.append(number)
        return f"Machine 'ci-{number}' stays." if number == self.foreign else ""


@pytest.fixture
def left(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Iterator[contextlib.ExitStack]:
    """A pool without a supervisor, whose second slot a job has until the stack is closed."""
    monkeypatch.setattr(slot, "Workshop", Removing)
    monkeypatch.setattr(Removing, "removed", [])
    pool.create(layout, a_pool(), None)
    lease.grant(layout.pool("ci").lease(1), "")
    lease.grant(layout.pool("ci").lease(2), "abc")
    with contextlib.ExitStack() as stack:
        stack.enter_context(lease.held(layout.pool("ci").lease(2), "abc", SOON))
        yield stack


def test_jobs_are_waited_for_without_a_supervisor(
    layout: Layout, left: contextlib.ExitStack
) -> None:
    with pytest.raises(errors.WaitTimeoutError, match="nothing of it was removed"):
        pools.delete(layout, "ci", Deadline.after(0.02), force=False)
    assert Removing.removed == [] and pool.read(layout, "ci").drained
    with pytest.raises(errors.WaitTimeoutError, match="hands out no more"):
        pools.drain(layout, "ci", Deadline.after(0.02), resume=False)
    left.close()
    pools.drain(layout, "ci", Deadline.after(60), resume=False)
    # What the job had is not handed out again as it is; the other one is.
    assert lease.granted(layout.pool("ci").lease(2))
    assert not lease.granted(layout.pool("ci").lease(1))
    pools.delete(layout, "ci", SOON, force=False)
    assert Removing.removed == [1, 2]
    assert not layout.pool("ci").directory.exists()


@pytest.mark.usefixtures("left")
def test_what_stays_is_told_without_a_supervisor(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Removing, "foreign", 2)
    assert pools.delete(layout, "ci", SOON, force=True) == ["Machine 'ci-2' stays."]
    assert not layout.pool("ci").directory.exists()


@pytest.mark.parametrize("machine", ["ci-1", "ci-2"])
def test_a_pool_that_is_there_is_named_before_its_machines(
    layout: Layout, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMCTL_HOME", str(layout.home))
    place = layout.machine(machine)
    place.directory.mkdir(parents=True)
    records.write(place, record(name=machine))
    asked = pools.Request(name="ci", source="tiny", uri="test:///default", slots=2, refills=1)
    with pytest.raises(errors.ConflictError, match=f"There is a machine '{machine}' already"):
        pools.create(asked)
    pool.create(layout, a_pool(), None)
    with pytest.raises(errors.ConflictError, match="There is a pool 'ci' already"):
        pools.create(asked)


@pytest.mark.parametrize("slots", [0, 1])
def test_a_pool_may_have_no_slots(
    layout: Layout, slots: int, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the beginning, as by `scale`; and the list says why it gives nothing out."""
    monkeypatch.setenv("VMCTL_HOME", str(layout.home))
    monkeypatch.setattr(template, "of", lambda _pool, _number: made_from(machine))
    monkeypatch.setattr(template, "available", lambda: 1 << 60)
    words = ["ci", "tiny", "--no-start", "--slots", str(slots)]
    with commands.create.make_context("create", words, obj=contexts.Context()) as ctx:
        commands.create.invoke(ctx)
    found = pools.status(layout, "ci")
    assert found["pool"]["slots"] == slots
    assert commands._what(found) == ("" if slots else "no slots")
    pools.drain(layout, "ci", SOON, resume=False)
    assert commands._what(pools.status(layout, "ci")) == "drained"


def test_an_interrupted_creation_says_what_stays(
    layout: Layout, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("VMCTL_HOME", str(layout.home))
    monkeypatch.setattr(template, "of", lambda _pool, _number: made_from(machine))
    monkeypatch.setattr(template, "available", lambda: 1 << 60)
    monkeypatch.setattr(pools, "start", lambda _name: None)
    monkeypatch.setattr(pools, "readied", lambda name, _deadline: interrupted(name))
    with (
        commands.create.make_context("create", ["ci", "tiny"], obj=contexts.Context()) as ctx,
        pytest.raises(errors.InterruptError, match="pool 'ci' stays, and its") as told,
    ):
        commands.create.invoke(ctx)
    assert "vmctl pool status ci" in told.value.hint and "vmctl pool delete ci" in told.value.hint
    assert pool.read(layout, "ci")


@pytest.mark.usefixtures("left")
def test_force_ends_the_jobs_without_a_supervisor(layout: Layout) -> None:
    pools.delete(layout, "ci", SOON, force=True)
    assert Removing.removed == [1, 2]


def made_from(machine: Machine) -> template.Template:
    return template.Template(machine=machine, path="/x.yaml", text=b"", image=None, warm=True)


def test_the_limit_holds_without_a_supervisor(
    layout: Layout, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template, "of", lambda _pool, _number: made_from(machine))
    monkeypatch.setattr(template, "available", lambda: 1 << 60)
    pool.create(layout, a_pool(memory_limit=3 * machine.memory_max), None)
    pools.scale(layout, "ci", 3)
    with pytest.raises(errors.HostError, match="more than the"):
        pools.scale(layout, "ci", 4)
    assert pool.read(layout, "ci").slots == 3


def test_the_limit_holds_after_an_edit(
    layout: Layout, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spec whose machines became larger: none is made."""
    monkeypatch.setattr(template, "of", lambda _pool, _number: made_from(machine))
    monkeypatch.setattr(template, "available", lambda: 1 << 60)
    monkeypatch.setattr(slot.Workshop, "_own", lambda *_: None)
    monkeypatch.setattr(slot.Workshop, "_take_away", lambda *_: None)
    found = a_pool(memory_limit=2 * machine.memory_max - 1)
    workshop = slot.Workshop(layout, found, lambda _number, _step: None)
    with pytest.raises(errors.HostError, match="more than the"):
        workshop._built(None, 1, None)  # type: ignore[arg-type]


def seen(machine: Machine, project: str, *, owned: bool = True) -> Observed:
    current = ReadBack(
        machine=dataclasses.replace(machine, project=project),
        owned=owned,
        digest="",
        machine_type="",
    )
    return Observed(name="ci-1", current=current, files=True)


def record(**changes: object) -> records.Record:
    fields = {"name": "ci-1", "project": "ci", "uuid": "", "uri": "", "mode": "", "spec": "/x.yaml"}
    return records.Record(**fields | changes)  # type: ignore[arg-type]


def test_a_pool_knows_its_own_machines(machine: Machine) -> None:
    nothing = Observed(name="ci-1", files=True)
    own = seen(machine, "ci")
    assert slot.owns(a_pool(), own, record(), {})
    assert slot.owns(a_pool(), nothing, record(), {"verb": "down"})
    # Killed before its record was written.
    for observed in (own, nothing):
        assert slot.owns(a_pool(), observed, None, {"verb": "up", "keep": []})
        assert not slot.owns(a_pool(), observed, None, {"verb": "up", "keep": ["data"]})
        assert not slot.owns(a_pool(), observed, None, {"verb": "clone"})
    # Of a directory that has the pool's name, say.
    assert not slot.owns(a_pool(), own, record(spec="/ci/lab.yaml"), {})
    assert not slot.owns(a_pool(), own, record(project="lab"), {})
    assert not slot.owns(a_pool(), own, record(adopted=True), {})
    assert not slot.owns(a_pool(), seen(machine, "lab"), record(), {})
    assert not slot.owns(a_pool(), seen(machine, "ci", owned=False), record(), {})
