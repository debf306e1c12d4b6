"""Disks made with the real qemu-img."""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import qcow2
from vmctl.machine.model import DiskFormat

MIB = 1 << 20


@pytest.fixture
def base(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "base.raw"
    path.write_bytes(b"base".ljust(MIB, b"."))
    return path


@pytest.fixture(autouse=True)
def loose_umask() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


def info(path: pathlib.Path) -> qcow2.ImageInfo:
    return qcow2.info(path, DiskFormat.QCOW2, Deadline.after(60))


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_blank_disk(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "disk.qcow2"
    made = qcow2.create_blank(path, 20 << 30)
    assert made == info(path)
    assert (made.virtual_size, made.backing) == (20 << 30, "")
    assert mode(path) == 0o600
    assert os.listdir(tmp_path) == ["disk.qcow2"]


def test_size_is_rounded_up_to_sectors(tmp_path: pathlib.Path) -> None:
    assert qcow2.create_blank(tmp_path / "a.qcow2", MIB + 1).virtual_size == MIB + 512


@pytest.mark.parametrize(("size", "expected"), [(0, MIB), (MIB, MIB), (5 * MIB, 5 * MIB)])
def test_overlay(tmp_path: pathlib.Path, base: pathlib.Path, size: int, expected: int) -> None:
    path = tmp_path / "root.qcow2"
    made = qcow2.create_overlay(path, base, DiskFormat.RAW, size)
    assert (made.virtual_size, made.backing) == (expected, str(base))
    assert mode(path) == 0o600
    done = subprocess.run(
        ["qemu-io", "-r", "-f", "qcow2", "-c", "read -v 0 4", path],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"base" in done.stdout
    assert b"backing_fmt" not in done.stdout


def test_overlay_smaller_than_its_base(tmp_path: pathlib.Path, base: pathlib.Path) -> None:
    with pytest.raises(errors.UsageError, match="smaller"):
        qcow2.create_overlay(tmp_path / "root.qcow2", base, DiskFormat.RAW, MIB - 512)
    assert not (tmp_path / "root.qcow2").exists()


@pytest.mark.parametrize("size", [0, -1])
def test_disk_without_a_size(tmp_path: pathlib.Path, size: int) -> None:
    with pytest.raises(errors.UsageError):
        qcow2.create_blank(tmp_path / "a.qcow2", size)


def test_nothing_is_overwritten(tmp_path: pathlib.Path, base: pathlib.Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(b"precious")
    with pytest.raises(errors.ConflictError, match="exists already"):
        qcow2.create_blank(path, MIB)
    with pytest.raises(errors.ConflictError):
        qcow2.create_overlay(path, base, DiskFormat.RAW, MIB)
    assert path.read_bytes() == b"precious"
    assert sorted(os.listdir(tmp_path)) == ["base.raw", "disk.qcow2"]


def test_links_are_not_followed(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "disk.qcow2").symlink_to(target)
    with pytest.raises(errors.ConflictError):
        qcow2.create_blank(tmp_path / "disk.qcow2", MIB)
    assert not target.exists()


def test_directory_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.HostError):
        qcow2.create_blank(tmp_path / "no" / "disk.qcow2", MIB)


def test_failure_leaves_nothing_behind(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.VmctlError):
        qcow2.create_blank(tmp_path / "disk.qcow2", 1 << 62)
    assert os.listdir(tmp_path) == []


def test_deadline_holds(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.WaitTimeoutError):
        qcow2.create_blank(tmp_path / "disk.qcow2", MIB, Deadline.after(0))
    assert os.listdir(tmp_path) == []


def test_names_that_qemu_img_could_take_for_something_else(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("json:{}", "nbd:host", "-f", "a,b=c", "sp ace"):
        path = tmp_path / name
        assert qcow2.create_blank(path, MIB).virtual_size == MIB
        assert path.is_file()
    assert info(pathlib.Path("json:{}")).virtual_size == MIB
