"""Which machine a CI system has, by the key that it knows."""

from __future__ import annotations

import contextlib
import json
import pathlib
from types import SimpleNamespace

import pytest

from vmctl import errors
from vmctl.guest.remote import Streams
from vmctl.machine.state import State
from vmctl.runner.ci import executor, keeper
from vmctl.runner.ci.executor import Order
from vmctl.runner.ci.offer import Choice, Sizes
from vmctl.runner.job import Guard, Job, Outcome
from vmctl.store import home, locks
from vmctl.store.layout import Layout


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    found = Layout(tmp_path / "store")
    home.opened(found)
    return found


def order(key: str, **more: str) -> Order:
    return Order(key=key, stem="gitlab", project="gitlab", choice=Choice(image="tiny"), **more)


def test_keys_are_labels_and_differ_by_identity() -> None:
    keys = [executor.key("garm-ny9HeeQYw2rl", "c", "x"), executor.key("-.-", "c", "x")]
    keys += [executor.key("x" * 200, "c", "y"), executor.key("x" * 200, "c", "z")]
    assert len(set(keys)) == 4
    for key in keys:
        assert len(key) <= 63
        assert key == key.lower()
        assert key[0].isalnum()
    assert executor.key("a", "b", "c") != executor.key("a", "bc", "")


def test_numbers_come_again_and_no_others_machine_is_taken(layout: Layout) -> None:
    beginning = f"gitlab-{home.opened(layout)[:6]}"
    layout.machine(f"{beginning}-1").directory.mkdir(parents=True)
    names = [executor._allot(order(key), layout, {"project": "gitlab"}) for key in ("a", "b")]
    assert names == [f"{beginning}-2", f"{beginning}-3"]
    assert executor.machine("a", layout) == names[0]
    executor._forget("a", layout)
    assert executor._allot(order("c"), layout, {"project": "gitlab"}) == names[0]
    assert sorted(executor.tags(layout, "gitlab")) == ["b", "c"]
    assert executor.tags(layout, "garm") == {}


def test_what_is_not_there_is_removed_already(layout: Layout) -> None:
    executor.done(executor.remove("none", "gitlab", layout))
    with pytest.raises(errors.NotFoundError):
        executor.machine("none", layout)


def test_a_machine_of_another_ci_system_is_refused(layout: Layout) -> None:
    executor._allot(order("a"), layout, {"project": "garm"})
    with pytest.raises(errors.ConflictError, match="belongs to project 'garm'"):
        executor.done(executor.remove("a", "gitlab", layout))


def test_the_spec_of_a_machine() -> None:
    wanted = Order(
        key="k",
        stem="gitlab",
        project="gitlab",
        choice=Choice(image="tiny"),
        sizes=Sizes(mode="full", cpus=2),
    )
    assert wanted.spec("gitlab-1").splitlines() == [
        "name: gitlab-1",
        "project: gitlab",
        'image: {name: "tiny"}',
        'mode: "full"',
        "cpus: 2",
    ]


def test_a_machine_that_nobody_keeps_is_nobodys(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "job.json"
    assert keeper.access(place) is None
    place.write_text(json.dumps({"machine": "m"}))
    assert keeper.access(place) is None
    access = {
        "name": "m", "host": "127.0.0.1", "port": 2, "user": "root", "key": "k",
        "known_hosts": "h", "alias": "a",
    }  # fmt: skip
    way = {"machine": "m", "access": access, "generation": "g", "key": ""}
    place.write_text(json.dumps({"pool_name": "p", "way": way}))
    with pytest.raises(errors.GuestError, match="was given back"):
        keeper.access(place)
    with keeper._alive(place):
        found = keeper.access(place)
        assert found is not None
        assert found.port == 2


def test_one_call_at_a_time_has_a_key(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    executor._allot(order("a"), layout, {"project": "gitlab"})
    monkeypatch.setattr(executor, "_BUSY_SECONDS", 0.1)
    monkeypatch.setattr(executor, "_down", lambda *_: iter(()))
    path = layout.lock("executors", "a")
    with (
        locks.hold(path, None, "It"),
        pytest.raises(errors.ConflictError, match="The machine of 'a' is being worked on"),
    ):
        executor.done(executor.remove("a", "gitlab", layout))
    assert executor.machine("a", layout)
    executor.done(executor.remove("a", "gitlab", layout))
    assert executor.tags(layout, "gitlab") == {}
    # Keys do not come again, and their locks do not pile up.
    assert not path.exists()


def test_a_lock_whose_file_has_gone_is_nobodys(layout: Layout) -> None:
    path = layout.lock("executors", "a")
    with executor._alone("a", layout):
        assert executor._is_ours(path)
        path.unlink()
        assert not executor._is_ours(path)
        path.write_text("1\n")
        assert not executor._is_ours(path)


def test_a_failed_claim_leaves_what_a_later_call_wrote(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "job.json"
    later = {"nonce": "another"}

    def detach(*_: object) -> None:
        place.write_text(json.dumps(later))
        raise errors.VmctlError("it ended")

    monkeypatch.setattr(keeper.background, "detach", detach)
    with pytest.raises(errors.VmctlError, match="it ended"):
        keeper.take("p", place, {})
    assert json.loads(place.read_text()) == later


def test_a_panic_in_a_machine_of_a_pool_ends_the_job(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = layout.machine("p-1").console_log
    log.parent.mkdir(parents=True)
    log.write_text("Kernel panic - not syncing: of an earlier job\n")
    way = {
        "name": "p-1", "host": "127.0.0.1", "port": 2, "user": "root", "key": "k",
        "known_hosts": "h", "alias": "a",
    }  # fmt: skip
    ready = {"machine": "p-1", "access": way, "generation": "g", "key": ""}
    place = executor.place(layout, "a")
    place.parent.mkdir(parents=True, exist_ok=True)
    told = {"machine": "p-1", "pool_name": "p", "way": ready, "console": log.stat().st_size}
    place.write_text(json.dumps(told))
    pulled: list[object] = []
    domains = SimpleNamespace(
        get=lambda *_: "d", state=lambda _: (State.RUNNING, ""), force_off=pulled.append
    )
    monkeypatch.setattr(executor, "domains", domains)
    monkeypatch.setattr(
        executor.connections, "opened", lambda *_: contextlib.nullcontext("connection")
    )

    def carry_out(_access: object, _job: object, _streams: object, *, guard: Guard) -> Outcome:
        assert guard.trouble() is None
        with log.open("a") as stream:
            stream.write("Kernel panic - not syncing: now\n")
        problem = guard.trouble()
        guard.end()
        return Outcome(status=125, problem=problem)

    monkeypatch.setattr(executor, "carry_out", carry_out)
    streams = Streams(stdin=None, stdout=lambda _: None, stderr=lambda _: None)
    with keeper._alive(place), pytest.raises(errors.GuestError, match=r"panicked .*now"):
        executor.run("a", Job(argv=("x",)), streams, layout, None)
    # Its pool looks after it.
    assert pulled == []
