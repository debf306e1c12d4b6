"""The supervisor with its real socket and threads, over machines that are none."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import pathlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests import supervising
from tests.supervising import LONG, Machines, states, supervised, until
from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.runner.pooling import (
    lease,
    pool,
    pool_client,
    protocol,
    supervisor,
)
from vmctl.runner.pooling.pool import Pool
from vmctl.store.layout import Layout


@pytest.fixture
def layout(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    return supervising.without_machines(tmp_path, monkeypatch)


def test_sixteen_askers(layout: Layout) -> None:
    """Nobody has what another has, nobody the same twice, and everybody gets one."""
    had: dict[str, threading.Lock] = {f"ci-{number}": threading.Lock() for number in (1, 2, 3)}
    generations: list[str] = []
    problems: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(10):
                with pool_client.claimed("ci", LONG) as claim:
                    assert had[claim.machine].acquire(blocking=False)
                    generations.append(claim.generation)
                    had[claim.machine].release()
        except BaseException as problem:  # noqa: BLE001
            problems.append(problem)

    with supervised(layout, slots=3):
        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []
    assert len(generations) == len(set(generations)) == 160


def test_the_lease_is_the_connection(layout: Layout) -> None:
    with supervised(layout, slots=1):
        with pool_client.claimed("ci", LONG) as claim:
            assert claim.machine == "ci-1"
            assert states(layout) == ["claimed"]
            assert not lease.clear(layout.pool("ci").lease(1))
            with (
                pytest.raises(errors.WaitTimeoutError, match="1 are claimed") as late,
                pool_client.claimed("ci", Deadline.after(0.05)),
            ):
                pytest.fail("it was given twice")
            assert "pool scale" in late.value.hint
        until(lambda: states(layout) == ["ready"])
        told = pool_client.status(layout, "ci")
        assert told is not None and told["counts"]["abandoned"] == 1
        with pool_client.claimed("ci", LONG) as again:
            assert again.generation != claim.generation


def test_first_come_first_served(layout: Layout) -> None:
    served: list[int] = []

    def ask(number: int) -> None:
        with pool_client.claimed("ci", LONG):
            served.append(number)

    threads = []
    with supervised(layout, slots=1):
        with pool_client.claimed("ci", LONG):
            for number in range(6):
                threads.append(threading.Thread(target=ask, args=(number,)))
                threads[-1].start()
                until(lambda: len(threads) == waiting(layout))
        for thread in threads:
            thread.join()
    assert served == list(range(6))


def waiting(layout: Layout) -> int:
    told = pool_client.status(layout, "ci")
    assert told is not None
    return int(told["waiting"])


def test_drained(layout: Layout) -> None:
    with supervised(layout):
        until(lambda: states(layout) == ["ready", "ready"])
        with pool_client.claimed("ci", LONG):
            with pytest.raises(errors.WaitTimeoutError):
                pool_client.ask(layout, "ci", Deadline.after(0.05), ask="drain", drained=True)
            with (
                pytest.raises(errors.ConflictError, match="drained"),
                pool_client.claimed("ci", LONG),
            ):
                pytest.fail("it is drained")
        pool_client.ask(layout, "ci", LONG, ask="drain", drained=True)
        assert pool.read(layout, "ci").drained
        pool_client.ask(layout, "ci", LONG, ask="drain", drained=False)
        with pool_client.claimed("ci", LONG):
            pass


def test_scaled_down_and_deleted(layout: Layout) -> None:
    """A slot that a job has goes when the job has ended, unless it is forced."""
    with supervised(layout, slots=2):
        with pool_client.claimed("ci", LONG), pool_client.claimed("ci", LONG):
            pool_client.ask(layout, "ci", LONG, ask="scale", slots=1)
            assert states(layout) == ["claimed", "claimed"]
        until(lambda: states(layout) == ["ready"])
        assert Machines.removed == [2]
        with pytest.raises(errors.UsageError, match="0 to 200"):
            pool_client.ask(layout, "ci", LONG, ask="scale", slots=201)
        with pool_client.claimed("ci", LONG), pytest.raises(errors.WaitTimeoutError):
            pool_client.ask(layout, "ci", Deadline.after(0.05), ask="delete")
    assert sorted(Machines.removed) == [1, 2]


def test_who_waits_for_nothing_is_told(layout: Layout) -> None:
    Machines.broken = "There is no room."
    with supervised(layout, slots=1):
        until(lambda: states(layout) == ["failed"])
        with (
            pytest.raises(errors.HostError, match="There is no room") as told,
            pool_client.claimed("ci", LONG),
        ):
            pytest.fail("there is no machine")
        assert told.value.hint == "Mend it."


@pytest.mark.parametrize("how", ["broken", "drained", "none"])
def test_who_waits_already_is_told(layout: Layout, how: str) -> None:
    said: list[str] = []

    def ask() -> None:
        try:
            with pool_client.claimed("ci", LONG):
                pytest.fail("there is no machine")
        except errors.VmctlError as problem:
            said.append(problem.message)

    with supervised(layout, slots=1):
        asker = threading.Thread(target=ask)
        with pool_client.claimed("ci", LONG):
            asker.start()
            until(lambda: waiting(layout) == 1)
            if how == "broken":
                Machines.broken = "There is no room."
            elif how == "none":
                pool_client.ask(layout, "ci", LONG, ask="scale", slots=0)
            else:
                with pytest.raises(errors.WaitTimeoutError):
                    pool_client.ask(layout, "ci", Deadline.after(0.05), ask="drain", drained=True)
        asker.join(60)
        assert not asker.is_alive()
    words = {"broken": "There is no room.", "drained": "is drained", "none": "has no slots"}
    assert len(said) == 1 and words[how] in said[0]


def test_a_slot_that_goes_and_comes_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    going, go_on = threading.Event(), threading.Event()
    remove = Machines.remove

    def slowly(self: Machines, number: int) -> str:
        going.set()
        go_on.wait(60)
        return remove(self, number)

    monkeypatch.setattr(Machines, "remove", slowly)
    monkeypatch.setattr(supervisor.template, "of", lambda *_: pytest.fail("it is not to grow"))
    with supervised(layout, slots=2):
        until(lambda: states(layout) == ["ready", "ready"])
        pool_client.ask(layout, "ci", LONG, ask="scale", slots=1)
        assert going.wait(60)
        pool_client.ask(layout, "ci", LONG, ask="scale", slots=2)
        go_on.set()
        until(lambda: Machines.removed == [2] and states(layout) == ["ready", "ready"])


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 200_000,
        b'{"ask":"scale","slots":Infinity}',
        b'{"ask":"scale","slots":"x"}',
        b'{"ask":"scale"}',
        b"nonsense",
    ],
)
def test_nonsense_harms_nobody(layout: Layout, line: bytes) -> None:
    with supervised(layout) as thread:
        with socket.socket(socket.AF_UNIX) as peer:
            with protocol.short(layout.pool("ci").socket) as address:
                peer.connect(address)
            peer.settimeout(60)
            peer.sendall(line + b"\n")
            assert peer.recv(100) == b""
        assert thread.is_alive() and states(layout)


def test_a_lease_that_cannot_be_written(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    grant = lease.grant

    def full(path: pathlib.Path, words: str) -> None:
        if words:
            raise OSError(errno.ENOSPC, "No space left on device")
        grant(path, words)

    with supervised(layout, slots=1):
        monkeypatch.setattr(lease, "grant", full)
        with (
            pytest.raises(errors.HostError, match="No space left"),
            pool_client.claimed("ci", LONG),
        ):
            pytest.fail("it could not be written down")
        monkeypatch.setattr(lease, "grant", grant)
        with pool_client.claimed("ci", LONG) as claim:
            assert claim.machine == "ci-1"


def test_a_used_slot_is_not_fresh_before_it_was_reset(layout: Layout) -> None:
    place = layout.pool("ci").lease(1)
    with supervised(layout, slots=1):
        until(lambda: states(layout) == ["ready"])
        assert not lease.granted(place)
        with pool_client.claimed("ci", LONG):
            Machines.broken = "It takes long."
        until(lambda: states(layout) == ["failed"])
        assert lease.granted(place)
        Machines.broken = ""
        until(lambda: states(layout) == ["ready"])
        assert not lease.granted(place)


def test_others_are_answered_while_it_grows(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the spec takes its time; a number that does not fit changes nothing."""
    reading, go_on = threading.Event(), threading.Event()
    said: list[str] = []

    def read(_pool: Pool, _number: int) -> None:
        reading.set()
        assert go_on.wait(60)
        raise errors.HostError("There is no room.")

    def grow() -> None:
        try:
            pool_client.ask(layout, "ci", LONG, ask="scale", slots=9)
        except errors.HostError as problem:
            said.append(problem.message)

    monkeypatch.setattr(supervisor.template, "of", read)
    with supervised(layout, slots=1):
        asker = threading.Thread(target=grow)
        asker.start()
        assert reading.wait(60)
        with pool_client.claimed("ci", LONG):
            go_on.set()
        asker.join()
        assert said == ["There is no room."]
        assert pool.read(layout, "ci").slots == 1


def test_what_changed_before_it_had_the_lock_counts(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = supervisor.locks.hold

    @contextlib.contextmanager
    def changed(path: pathlib.Path, deadline: Deadline | None, what: str) -> Iterator[None]:
        with hold(path, deadline, what):
            pool.write(layout, dataclasses.replace(pool.read(layout, "ci"), slots=3))
            yield

    made = Pool(name="ci", spec="/x.yaml", uri="test:///default", slots=1)
    pool.create(layout, made, None)
    monkeypatch.setattr(supervisor.locks, "hold", changed)
    begun = threading.Event()
    thread = threading.Thread(target=supervisor.serve, args=(layout, "ci", begun.set))
    thread.start()
    assert begun.wait(60)
    try:
        assert len(states(layout)) == 3
    finally:
        pool_client.ask(layout, "ci", LONG, ask="delete", force=True)
        thread.join()


def test_nobody_supervises(layout: Layout) -> None:
    made = Pool(name="ci", spec="/x.yaml", uri="test:///default", slots=1)
    pool.create(layout, made, None)
    with (
        pytest.raises(errors.ConflictError, match="Nobody supervises") as told,
        pool_client.claimed("ci", LONG),
    ):
        pytest.fail("there is nobody")
    assert "pool serve --background ci" in told.value.hint
    assert pool_client.status(layout, "ci") is None


def test_an_idle_pool_ends(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    rested: list[int] = []
    monkeypatch.setattr(
        Machines, "rest", lambda _self, number: rested.append(number), raising=False
    )
    made = Pool(name="ci", spec="/x.yaml", uri="test:///default", slots=1, idle=0.2)
    pool.create(layout, made, None)
    supervisor.serve(layout, "ci")
    assert rested == [1]
    assert pool.read(layout, "ci") == made
    assert not layout.pool("ci").socket.exists()


def test_one_claim_for_a_connection(layout: Layout) -> None:
    with supervised(layout, slots=1), contextlib.ExitStack() as stack:
        call = protocol.call(layout.pool("ci").socket)
        assert call is not None
        stack.enter_context(call)
        assert call.ask(LONG, ask="claim")["machine"] == "ci-1"
        with pytest.raises(errors.UsageError, match="once"):
            call.ask(LONG, ask="claim")
        assert states(layout) == ["claimed"]
