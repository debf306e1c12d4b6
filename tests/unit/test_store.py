from __future__ import annotations

import multiprocessing
import os
import pathlib
import stat
import time

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.store import files, home, locks, records
from vmctl.store.layout import Layout


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    return Layout(tmp_path / "store")


@pytest.fixture(params=[0o000, 0o077])
def umask(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_permissions_do_not_depend_on_the_umask(layout: Layout, umask: int) -> None:
    home.opened(layout)
    place = layout.machine("web")
    records.begin(place, "up")
    assert mode(layout.machines) == 0o711
    assert mode(place.directory) == 0o711
    assert mode(place.intent) == 0o600
    files.write(place.spec, b"x", files.SHARED)
    assert mode(place.spec) == 0o644


def test_the_store_has_an_id_that_stays(layout: Layout) -> None:
    assert home.store_id(layout) == ""
    assert not layout.home.exists()
    first = home.opened(layout)
    assert first
    assert home.opened(layout) == first


def test_a_store_of_another_format_is_refused(layout: Layout) -> None:
    home.opened(layout)
    files.write_json(layout.format_file, {"format": 99, "id": "x"})
    with pytest.raises(errors.ConflictError, match="99"):
        home.opened(layout)


def test_a_write_is_whole_or_not_at_all(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    files.make_directory(layout.home)
    path = layout.home / "file"
    files.write(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.HostError, match="No space left"):
        files.write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(layout.home.iterdir()) == [path]


def test_a_symbolic_link_is_replaced_and_not_followed(layout: Layout) -> None:
    files.make_directory(layout.home)
    target = layout.home / "target"
    target.write_bytes(b"precious")
    link = layout.home / "link"
    link.symlink_to(target)
    files.write(link, b"new")
    assert target.read_bytes() == b"precious"
    assert not link.is_symlink()


def test_leftovers_of_killed_writers_are_cleared(layout: Layout) -> None:
    files.make_directory(layout.home)
    leftover = files.temporary(layout.home / "file")
    leftover.write_bytes(b"half")
    (layout.home / "file").write_bytes(b"whole")
    files.clear_temporaries(layout.home)
    assert [path.name for path in layout.home.iterdir()] == ["file"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"name": "x"}', b"null"])
def test_damaged_records_are_no_records(layout: Layout, content: bytes) -> None:
    place = layout.machine("web")
    files.make_directory(place.directory)
    place.record.write_bytes(content)
    assert records.read(place) is None
    assert list(records.every(layout)) == []


def test_records_of_later_versions_can_be_read(layout: Layout) -> None:
    place = layout.machine("web")
    files.make_directory(place.directory)
    record = records.Record(
        name="web", project="p", uuid="u", uri="x", mode="full", networks=("vmctl-nat",)
    )
    records.write(place, record)
    data = files.read_json(place.record)
    assert data is not None
    files.write_json(place.record, {**data, "added_later": 1})
    assert records.read(place) == record


def test_an_intent_is_there_until_it_is_finished(layout: Layout) -> None:
    place = layout.machine("web")
    assert records.intent(place) == {}
    records.begin(place, "down", keep=["data"])
    assert records.intent(place) == {"verb": "down", "keep": ["data"]}
    records.finish(place)
    records.finish(place)
    assert records.intent(place) == {}


def _hold(path: str, ready: multiprocessing.Queue[int]) -> None:
    with locks.hold(pathlib.Path(path), None, "It"):
        ready.put(os.getpid())
        time.sleep(60)


@pytest.mark.allow_process
def test_a_lock_is_free_as_soon_as_its_holder_is_killed(layout: Layout) -> None:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[int] = context.Queue()
    path = layout.lock("machine", "web")
    holder = context.Process(target=_hold, args=(str(path), queue))
    holder.start()
    try:
        pid = queue.get(timeout=30)
        with (
            pytest.raises(errors.ConflictError, match=str(pid)) as refusal,
            locks.hold(path, None, "Machine 'web'"),
        ):
            pass
        assert refusal.value.exit_code == 4
        with pytest.raises(errors.ConflictError), locks.hold(path, Deadline.after(0.2), "It"):
            pass
    finally:
        holder.kill()
        holder.join()
    with locks.hold(path, None, "Machine 'web'"):
        pass


def test_a_store_that_qemu_cannot_reach_is_refused(layout: Layout) -> None:
    home.opened(layout)
    layout.home.parent.chmod(0o700)
    with pytest.raises(errors.HostError, match="cannot enter") as refusal:
        home.refuse_unreachable(layout)
    assert "chmod o+x" in refusal.value.hint
