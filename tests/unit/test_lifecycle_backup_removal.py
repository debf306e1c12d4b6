"""Backups that others need, or may need, are not removed unseen."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest

from vmctl import errors
from vmctl.lifecycle import backup_removal
from vmctl.store import backups
from vmctl.store.backups import Backup, Copy, Kind, Shelf

FIRST, SECOND, THIRD = "20260101-000001", "20260101-000002", "20260101-000003"


@pytest.fixture
def shelf(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv("VMCTL_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir(mode=0o711)
    shelf = Shelf(tmp_path / "to" / "web")
    for name in (FIRST, SECOND, THIRD):
        place = shelf.place(name)
        place.directory.mkdir(parents=True)
        place.file("root.qcow2").write_bytes(b"image")
        copy = Copy(name="root", file="root.qcow2", size=9, bytes=5, digest="d")
        made = Backup(name=name, machine="web", uuid="u", kind=Kind.FULL, disks=(copy,))
        backups.write(place, made)
    return shelf


def run(happenings: Any) -> None:
    for _ in happenings:
        pass


@pytest.mark.parametrize("damage", ["gone", "empty"])
@pytest.mark.parametrize("way", ["delete", "prune"])
def test_a_base_stays_while_a_newer_one_cannot_be_read(shelf: Shelf, damage: str, way: str) -> None:
    manifest = shelf.place(THIRD).manifest
    if damage == "gone":
        manifest.unlink()
    else:
        manifest.write_bytes(b"")
    to = shelf.directory.parent
    if way == "delete":
        happenings = backup_removal.delete("web", FIRST, to)
    else:
        happenings = backup_removal.prune("web", 1, to)
    with pytest.raises(errors.RefusedError, match=f"'{THIRD}' of machine 'web' may need") as said:
        run(happenings)
    assert str(shelf.place(THIRD).directory) in said.value.hint
    assert shelf.names == [FIRST, SECOND, THIRD]


def test_a_damaged_one_that_nobody_can_need_goes_with_the_others(shelf: Shelf) -> None:
    shelf.place(FIRST).manifest.write_bytes(b"")
    run(backup_removal.prune("web", 1, shelf.directory.parent))
    assert shelf.names == [THIRD]


def test_what_is_named_as_a_backup_and_is_none_stays(shelf: Shelf) -> None:
    release = shelf.place(FIRST)
    release.manifest.unlink()
    with pytest.raises(errors.RefusedError, match="does not say that it is a backup"):
        run(backup_removal.prune("web", 1, shelf.directory.parent))
    assert release.file("root.qcow2").exists()


def test_the_newest_is_the_one_that_was_asked_about(shelf: Shelf) -> None:
    to = shelf.directory.parent
    meant = backup_removal.meant("web", backups.LATEST, to)
    assert meant == THIRD
    happenings = backup_removal.delete("web", meant, to)
    # One that is made while the question stands is not what the answer was about.
    newer = shelf.place("20260101-000004")
    newer.directory.mkdir()
    newer.file("root.qcow2").write_bytes(b"image")
    made = backups.read(shelf, THIRD)
    backups.write(newer, dataclasses.replace(made, name=newer.directory.name))
    run(happenings)
    assert shelf.names == [FIRST, SECOND, "20260101-000004"]
    with pytest.raises(errors.NotFoundError):
        run(backup_removal.delete("web", THIRD, to))
    with pytest.raises(errors.NotFoundError):
        backup_removal.meant("web", THIRD, to)
