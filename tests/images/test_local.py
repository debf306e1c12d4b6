"""Copies disk images into a store, and disturbs it while it does."""

from __future__ import annotations

import concurrent.futures
import ctypes
import hashlib
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import local, shelf
from vmctl.machine.model import DiskFormat, Image
from vmctl.store.layout import Layout

QCOW2 = DiskFormat.QCOW2
RAW = DiskFormat.RAW
MIB = 1 << 20
SCRIPT = """
import itertools, os, pathlib, signal, sys
from vmctl.deadline import Deadline
from vmctl.images import local
from vmctl.machine.model import DiskFormat
from vmctl.store.layout import Layout
layout, calls = Layout(pathlib.Path(sys.argv[1])), itertools.count()
def progress(*_):
    if next(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
local.ensure(layout, sys.argv[2], DiskFormat.RAW, Deadline.after(300), progress)
"""
"""Copies an image and dies when progress is told for the n-th time."""


def die(layout: Layout, path: pathlib.Path, when: int) -> None:
    words = [sys.executable, "-c", SCRIPT, layout.home, path, str(when)]
    assert subprocess.run(words, check=False, timeout=120).returncode == -signal.SIGKILL


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    return Layout(tmp_path / "store")


@pytest.fixture
def raw(tmp_path: pathlib.Path) -> pathlib.Path:
    """8 MiB of data, 24 MiB of nothing, 4 MiB of data and a hole to the end."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as stream:
        stream.write(os.urandom(8 * MIB))
        stream.seek(32 * MIB)
        stream.write(os.urandom(4 * MIB))
        stream.truncate(64 * MIB + 512)
    return path


@pytest.fixture
def qcow2(tmp_path: pathlib.Path, raw: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk.qcow2"
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path]
    subprocess.run(words, check=True, timeout=60)
    return path


def ensure(
    layout: Layout,
    path: pathlib.Path,
    format: DiskFormat = RAW,  # noqa: A002
    progress: local.Progress = lambda *_: None,
) -> Image:
    return local.ensure(layout, str(path), format, Deadline.after(120), progress)


def sha256(path: pathlib.Path | str) -> str:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def stored(layout: Layout) -> list[str]:
    """Return all that lies among the images, leftovers included."""
    return sorted(os.listdir(layout.images))


@pytest.mark.parametrize("name", ["raw", "qcow2"])
def test_what_is_in_the_store(layout: Layout, name: str, request: pytest.FixtureRequest) -> None:
    path: pathlib.Path = request.getfixturevalue(name)
    before = path.stat()
    mask = os.umask(0o077)
    try:
        image = ensure(layout, path, DiskFormat(name))
    finally:
        os.umask(mask)
    assert image.digest == sha256(path) == sha256(image.disk)
    assert image.disk == str(layout.image(image.digest) / f"disk.{name}")
    assert image.size == 64 * MIB + 512
    assert image == local.find(layout, str(path), DiskFormat(name))
    assert shelf.damage(layout, image.digest) == []
    assert stored(layout) == [image.digest]
    assert stat.S_IMODE(layout.image(image.digest).stat().st_mode) == 0o755
    for entry in layout.image(image.digest).iterdir():
        assert stat.S_IMODE(entry.stat().st_mode) == 0o644
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns, after.st_mode) == (
        before.st_mtime_ns,
        before.st_ctime_ns,
        before.st_mode,
    ), "the user's file is only read"


def test_absent_image_says_what_it_will_be(layout: Layout, qcow2: pathlib.Path) -> None:
    image = local.find(layout, str(qcow2), QCOW2)
    assert not image.present
    assert (image.name, image.size) == ("disk.qcow2", 64 * MIB + 512)
    assert image.disk.startswith(str(layout.images))
    assert not pathlib.Path(image.disk).exists()
    assert not layout.home.exists(), "looking creates nothing"


def test_holes_stay_holes(layout: Layout, raw: pathlib.Path) -> None:
    with raw.open("r+b") as stream:
        stream.seek(16 * MIB)
        stream.write(bytes(8 * MIB))
    image = ensure(layout, raw)
    assert sha256(image.disk) == sha256(raw)
    assert os.stat(image.disk).st_blocks * 512 < 13 * MIB, "zeros that were written are a hole now"


def test_all_of_it_a_hole(layout: Layout, raw: pathlib.Path) -> None:
    os.truncate(raw, 0)
    os.truncate(raw, 8 * MIB)
    image = ensure(layout, raw)
    assert image.digest == hashlib.sha256(bytes(8 * MIB)).hexdigest()
    assert os.stat(image.disk).st_size == 8 * MIB


def test_progress_is_told_in_bytes(layout: Layout, raw: pathlib.Path) -> None:
    told: list[tuple[int, int]] = []
    ensure(layout, raw, progress=lambda _, done, total: told.append((done, total)))
    size = raw.stat().st_size
    assert told[0] == (0, size)
    assert told[-1] == (size, size)
    assert told == sorted(told)
    assert len(told) > 10


def test_second_time_nothing_is_copied(layout: Layout, raw: pathlib.Path) -> None:
    first = ensure(layout, raw)
    copy = os.stat(first.disk)
    told: list[str] = []
    again = ensure(layout, raw, progress=lambda what, *_: told.append(what))
    assert again == first
    assert told == []
    assert os.stat(first.disk) == copy


def test_new_content_is_a_new_image_and_the_old_one_stays(
    layout: Layout, raw: pathlib.Path
) -> None:
    first = ensure(layout, raw)
    with raw.open("r+b") as stream:
        stream.write(b"changed")
    assert not local.find(layout, str(raw), RAW).present
    second = ensure(layout, raw)
    assert second.digest != first.digest
    assert stored(layout) == sorted([first.digest, second.digest])
    assert shelf.damage(layout, first.digest) == []


def test_same_content_is_kept_once(layout: Layout, raw: pathlib.Path) -> None:
    first = ensure(layout, raw)
    copy = os.stat(first.disk)
    os.utime(raw)
    other = raw.with_name("other.raw")
    other.write_bytes(raw.read_bytes())
    assert ensure(layout, raw) == first
    assert ensure(layout, other).digest == first.digest
    assert local.find(layout, str(other), RAW).name == "other.raw"
    assert local.find(layout, str(raw), RAW).name == "disk.raw"
    assert stored(layout) == [first.digest]
    assert os.stat(first.disk) == copy


def test_damaged_copy_is_mended(layout: Layout, raw: pathlib.Path) -> None:
    image = ensure(layout, raw)
    with open(image.disk, "r+b") as stream:
        stream.write(b"damaged")
    os.utime(raw)
    assert ensure(layout, raw) == image
    assert shelf.damage(layout, image.digest) == []


def test_copy_that_was_removed_is_made_again(layout: Layout, raw: pathlib.Path) -> None:
    image = ensure(layout, raw)
    os.unlink(image.disk)
    assert not local.find(layout, str(raw), RAW).present
    assert ensure(layout, raw) == image
    assert sha256(image.disk) == image.digest


def test_of_two_at_once_one_copies(layout: Layout, raw: pathlib.Path) -> None:
    told: list[int] = []

    def work(_: int) -> Image:
        return ensure(layout, raw, progress=lambda _, done, __: told.append(done))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, range(2))
    assert first == second
    assert told.count(0) == 1
    assert stored(layout) == [first.digest]


def test_two_files_with_the_same_content_at_once(layout: Layout, raw: pathlib.Path) -> None:
    other = raw.with_name("other.raw")
    other.write_bytes(raw.read_bytes())
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda path: ensure(layout, path), (raw, other))
    assert first.digest == second.digest
    assert stored(layout) == [first.digest]
    assert shelf.damage(layout, first.digest) == []


def test_killed_while_copying(layout: Layout, raw: pathlib.Path) -> None:
    told: list[str] = []
    ensure(Layout(layout.home.with_name("other")), raw, progress=lambda *_: told.append(""))
    last = len(told) - 1
    for when in (0, 1, last // 2, last - 1, last):
        die(layout, raw, when)
        assert len(stored(layout)) == 1, "what the one before left was cleared"
        assert stored(layout)[0].startswith(".tmp-")
        assert not local.find(layout, str(raw), RAW).present
    assert ensure(layout, raw).digest == sha256(raw)
    assert stored(layout) == [sha256(raw)]
    assert [name for name in os.listdir(layout.image_names) if name.startswith(".")] == []


def test_what_a_killed_copy_of_another_file_left_is_cleared(
    layout: Layout, raw: pathlib.Path
) -> None:
    image = ensure(layout, raw)
    other = local._File(layout, "/gone/disk.raw", RAW)
    leftover = layout.images / f".tmp-{other.key}-01234567"
    leftover.mkdir()
    (leftover / "disk.raw").write_bytes(b"half")
    of_a_builder = layout.images / ".tmp-tiny-01234567"
    of_a_builder.mkdir()
    os.utime(raw)
    assert ensure(layout, raw) == image
    assert stored(layout) == sorted([image.digest, of_a_builder.name])


def test_file_that_is_written_meanwhile(layout: Layout, raw: pathlib.Path) -> None:
    def disturb(_: str, done: int, __: int) -> None:
        if done == 4 * MIB:
            with raw.open("r+b") as stream:
                stream.write(b"meanwhile")

    with pytest.raises(errors.ConflictError, match="changed while it was copied"):
        ensure(layout, raw, progress=disturb)
    assert stored(layout) == []
    assert not local.find(layout, str(raw), RAW).present


@pytest.mark.parametrize("how", ["shorter", "replaced", "removed"])
def test_file_that_goes_away_meanwhile(layout: Layout, raw: pathlib.Path, how: str) -> None:
    def disturb(_: str, done: int, __: int) -> None:
        if done == 4 * MIB and how == "shorter":
            os.truncate(raw, 512)
        elif done == 4 * MIB and how == "replaced":
            other = raw.with_name("other")
            other.write_bytes(raw.read_bytes())
            other.rename(raw)
        elif done == 4 * MIB:
            raw.unlink()

    with pytest.raises((errors.ConflictError, errors.NotFoundError)):
        ensure(layout, raw, progress=disturb)
    assert stored(layout) == []


def test_change_in_the_same_tick_of_the_clock_is_seen(layout: Layout, raw: pathlib.Path) -> None:
    """A write right after the copy, of the same length, must not be taken for what was copied."""
    small = raw.with_name("small.raw")
    for number in range(20):
        small.write_bytes(bytes([number]) * 512)
        ensure(layout, small)
        small.write_bytes(bytes([number + 100]) * 512)
        assert not local.find(layout, str(small), RAW).present


def test_interruption_leaves_nothing(layout: Layout, raw: pathlib.Path) -> None:
    def interrupt(_: str, done: int, __: int) -> None:
        if done:
            raise errors.InterruptError("Interrupted.")

    with pytest.raises(errors.InterruptError):
        ensure(layout, raw, progress=interrupt)
    assert stored(layout) == []


def test_deadline(layout: Layout, raw: pathlib.Path) -> None:
    with pytest.raises(errors.WaitTimeoutError):
        local.ensure(layout, str(raw), RAW, Deadline.after(0), lambda *_: None)
    assert stored(layout) == []


def test_refused_images_never_reach_the_store(
    layout: Layout, qcow2: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    leaky = tmp_path / "leaky.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", "-u"]
    subprocess.run([*words, leaky, "1M"], check=True, timeout=60)
    for path, format_ in ((leaky, QCOW2), (qcow2, RAW), (tmp_path, RAW)):
        with pytest.raises(errors.RefusedError):
            local.find(layout, str(path), format_)
        with pytest.raises(errors.RefusedError):
            ensure(layout, path, format_)
    assert not layout.images.exists() or stored(layout) == []


def test_fifo_does_not_hang(layout: Layout, tmp_path: pathlib.Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(errors.RefusedError, match="not a regular file"):
        ensure(layout, fifo)


def test_full_disk_is_said_and_leaves_nothing(tmp_path: pathlib.Path, raw: pathlib.Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    home = tmp_path / "small"
    home.mkdir()
    if os.geteuid() != 0 or libc.mount(b"tmpfs", bytes(home), b"tmpfs", 0, b"size=6m") != 0:
        pytest.skip("only root can mount a small file system here")
    try:
        layout = Layout(home)
        with pytest.raises(errors.HostError, match="no room") as caught:
            ensure(layout, raw)
        assert str(raw) in caught.value.message
        assert "12 MiB" in caught.value.message
        assert "VMCTL_HOME" in caught.value.hint
        assert stored(layout) == []
        assert not local.find(layout, str(raw), RAW).present
    finally:
        libc.umount2(bytes(home), 2)


def test_record_names_the_file(layout: Layout, raw: pathlib.Path) -> None:
    image = ensure(layout, raw)
    (record,) = layout.image_names.iterdir()
    data = json.loads(record.read_text())
    assert (data["digest"], data["path"]) == (image.digest, str(raw))
