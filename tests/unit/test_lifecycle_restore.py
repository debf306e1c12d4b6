"""Machines that go back together: none goes on before all are there, and none waits for ever."""

from __future__ import annotations

import contextlib
import pathlib
import threading

import pytest

from vmctl.lifecycle import restore, snapshots
from vmctl.store import snapshots as trees
from vmctl.store.layout import Layout
from vmctl.store.snapshots import Kind, Snapshot


def test_none_goes_on_before_the_last_is_back() -> None:
    others, gone_on, late = restore._Others(3), [], threading.Event()

    def work(name: str) -> None:
        with contextlib.suppress(ValueError), others.one():
            if name == "broken":
                raise ValueError
            if name == "late":
                late.wait()
            others.wait()
            gone_on.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("early", "broken", "late")]
    for thread in threads:
        thread.start()
    threads[1].join()
    threads[0].join(0.05)
    assert gone_on == []
    late.set()
    for thread in threads:
        thread.join(60)
    assert sorted(gone_on) == ["early", "late"]


def test_one_alone_waits_for_nobody() -> None:
    others = restore._Others(1)
    with others.one():
        others.wait()
        others.wait()


def test_a_name_that_none_of_them_has(tmp_path: pathlib.Path) -> None:
    layout = Layout(tmp_path)
    assert snapshots.own_name(layout, ["a", "b"], "restore") == "before-restore-1"
    for machine, taken in (
        ("a", ("before-restore-2", "before-up-7")),
        ("b", ("before-restore-x",)),
    ):
        found = tuple(Snapshot(name=name, kind=Kind.OFFLINE) for name in taken)
        layout.machine(machine).directory.mkdir(parents=True)
        trees.write(layout.machine(machine), trees.Tree(found))
    assert snapshots.own_name(layout, ["a", "b"], "restore") == "before-restore-3"
    assert snapshots.own_name(layout, ["b"], "restore") == "before-restore-1"


def test_those_that_were_asked_for_are_never_pruned(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMCTL_HOME", str(tmp_path))
    place = Layout(tmp_path).machine("a")
    place.directory.mkdir(parents=True)
    own = (("before-up-1", "up"), ("mine", ""), ("before-restore-1", "restore"), ("before-x", ""))
    found = tuple(Snapshot(name=name, kind=Kind.OFFLINE, origin=origin) for name, origin in own)
    trees.write(place, trees.Tree(found))
    assert snapshots.made_by_itself(["a", "none"], 0) == {
        "a": ("before-up-1", "before-restore-1"),
        "none": (),
    }
    assert snapshots.made_by_itself(["a"], 1) == {"a": ("before-up-1",)}
    assert snapshots.made_by_itself(["a"], 5) == {"a": ()}
