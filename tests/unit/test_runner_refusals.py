"""What a supervisor refuses, and what it says of machines that it can do nothing with."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import threading

import pytest

from tests import supervising
from tests.supervising import LONG, Machines, states, supervised, until
from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.runner.pooling import (
    ledger,
    pool_client,
    pools,
    supervisor,
)
from vmctl.runner.pooling.ready import Ready
from vmctl.spec.problems import Problem, SpecError
from vmctl.store import records
from vmctl.store.layout import Layout


@pytest.fixture
def layout(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    return supervising.without_machines(tmp_path, monkeypatch)


def test_a_machine_that_is_not_the_pools_is_told_of(layout: Layout) -> None:
    """The pool goes all the same."""
    with supervised(layout, slots=1):
        until(lambda: states(layout) == ["ready"])
        Machines.foreign = "Machine 'ci-1' stays."
        assert pools.delete(layout, "ci", LONG, force=False) == ["Machine 'ci-1' stays."]


def test_a_machine_that_cannot_be_removed_is_told_of(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once after some tries; one whose time is over before that hears of no jobs."""
    with supervised(layout, slots=1):
        until(lambda: states(layout) == ["ready"])
        Machines.stuck = "The disk is gone."
        pools.scale(layout, "ci", 0)
        until(lambda: states(layout) == ["failed"])
        with pytest.raises(errors.WaitTimeoutError, match="were not removed") as late:
            pools.delete(layout, "ci", Deadline.after(0.2), force=True)
        assert "ci-1: The disk is gone." in late.value.message
        monkeypatch.setattr(ledger, "_FIRST_RETRY", 0.01)
        with pytest.raises(errors.ConflictError, match="'ci-1' cannot be removed") as told:
            pools.delete(layout, "ci", LONG, force=False)
        assert "The disk is gone." in told.value.message
        assert told.value.hint == "Mend it. It is tried again: vmctl pool status ci"


def test_what_could_not_be_made_can_be_removed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How often its making failed says nothing about its removal."""
    monkeypatch.setattr(ledger, "_FIRST_RETRY", 0.001)
    Machines.broken = "There is no room."
    with supervised(layout, slots=1):
        told = lambda: pool_client.status(layout, "ci") or {}  # noqa: E731
        until(lambda: told()["counts"]["failures"] > 3)
        assert pools.delete(layout, "ci", LONG, force=False) == []


def test_the_first_problem_of_a_spec_is_named(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Problem(file="/x.yaml", line=3, column=1, length=5, message="there is no key 'bogus'")
    wrong = SpecError([first, dataclasses.replace(first, line=4)])
    text = "/x.yaml:3:1: there is no key 'bogus' (and 1 more)"

    def refuse(*_: object) -> Ready:
        raise wrong

    monkeypatch.setattr(Machines, "renew", refuse)
    monkeypatch.setattr(supervisor.template, "of", refuse)
    with supervised(layout, slots=1):
        until(lambda: states(layout) == ["failed"])
        told = pool_client.status(layout, "ci")
        assert told is not None and told["slots"][0]["problem"] == text
        with pytest.raises(errors.HostError) as problem, pool_client.claimed("ci", LONG):
            pytest.fail("there is no machine")
        assert problem.value.message == f"No machine of pool 'ci' can be made ready: {text}"
        with pytest.raises(errors.UsageError) as refused:
            pools.scale(layout, "ci", 9)
        assert refused.value.message == text


def test_a_second_supervisor_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_OTHERS_SECONDS", 0.0)
    words = f"Pool 'ci' is supervised already \\(process {os.getpid()}\\)"
    with supervised(layout, slots=1):
        with pytest.raises(errors.ConflictError, match=words):
            supervisor.serve(layout, "ci")
        with pytest.raises(errors.ConflictError, match=words):
            pool_client.refuse_second(layout, "ci")


def test_what_others_worked_on_is_not_handed_out(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that was put back to its snapshot has no identity of its own any more."""
    with supervised(layout, slots=1):
        until(lambda: states(layout) == ["ready"])
        place = layout.machine("ci-1")
        place.directory.mkdir(parents=True)
        records.begin(place, "restore")
        asked = threading.Event()
        renew = Machines.renew

        def mended(self: Machines, number: int) -> Ready:
            records.finish(place)
            return renew(self, number)

        monkeypatch.setattr(Machines, "renew", mended)

        def claim() -> None:
            with pool_client.claimed("ci", LONG) as given:
                assert given.generation == "1-2"
                asked.set()

        asker = threading.Thread(target=claim)
        asker.start()
        asker.join(60)
        assert asked.is_set()
