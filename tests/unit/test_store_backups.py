"""Manifests of backups: read back, refused where they are damaged, finished after a kill."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pytest

from vmctl import errors
from vmctl.store import backups, files
from vmctl.store.backups import Backup, Copy, Kind, Shelf

FIRST, SECOND, THIRD = "20260101-000001", "20260101-000002", "20260101-000002-002"


@pytest.fixture
def shelf(tmp_path: pathlib.Path) -> Shelf:
    return Shelf(tmp_path / "web")


def put(shelf: Shelf, name: str, parent: str = "", content: bytes = b"image") -> Backup:
    place = shelf.place(name)
    place.directory.mkdir(parents=True, exist_ok=True)
    place.file("root.qcow2").write_bytes(content)
    backup = Backup(
        name=name,
        machine="web",
        uuid="u",
        kind=Kind.INCREMENTAL if parent else Kind.FULL,
        parent=parent,
        created=1.5,
        quiesced=True,
        checkpoint="vmctl-x",
        comment="ä\n\x1b[31m",
        disks=(Copy(name="root", file="root.qcow2", size=9, bytes=len(content), digest="d"),),
        xml="<domain/>",
        record={"why": "x"},
        kept={"spec": "name: web\n"},
    )
    backups.write(place, backup)
    return backup


def test_all_is_read_back_and_private(shelf: Shelf) -> None:
    first = put(shelf, FIRST)
    assert backups.read(shelf, FIRST) == first
    assert shelf.place(FIRST).manifest.stat().st_mode & 0o777 == 0o600
    assert (first.bytes, shelf.machine) == (5, "web")


def test_a_chain_leads_to_the_full_one(shelf: Shelf) -> None:
    chain = [put(shelf, FIRST), put(shelf, SECOND, FIRST), put(shelf, THIRD, SECOND)]
    assert backups.chain(shelf, THIRD) == chain[::-1]
    assert backups.resolved(shelf, backups.LATEST) == THIRD
    assert backups.children(shelf, FIRST) == [chain[1]]
    assert backups.below(shelf, FIRST, "root") == f"../{FIRST}/root.qcow2"
    assert [depth for depth, _ in backups.ordered(chain)] == [0, 1, 2]
    backups.remove(shelf, FIRST)
    assert shelf.names == [SECOND, THIRD]
    with pytest.raises(errors.RefusedError, match=f"needs '{FIRST}'"):
        backups.chain(shelf, THIRD)
    # What lost its parent is still shown.
    assert [each.name for _, each in backups.ordered(chain[1:])] == [SECOND, THIRD]


def test_names_come_in_the_order_of_time(shelf: Shelf) -> None:
    now = 1767225601.0
    names = []
    for moment in (now, now, now, now - 3600, now + 1):
        names.append(backups.new_name(shelf, moment))
        put(shelf, names[-1])
    assert names == sorted(names)
    assert len(set(names)) == 5
    assert all(backups.NAME.fullmatch(name) for name in names)


def test_a_second_has_no_more_names_than_the_grammar(shelf: Shelf) -> None:
    put(shelf, f"{FIRST}-999")
    name = backups.new_name(shelf, 0.0)
    assert (name, backups.NAME.fullmatch(name) is not None) == (SECOND, True)


@pytest.mark.parametrize("name", ["", "..", "../web", "a/b", "20260101-000009"])
def test_no_name_leads_out(shelf: Shelf, name: str) -> None:
    put(shelf, FIRST)
    with pytest.raises(errors.NotFoundError) as refused:
        backups.read(shelf, name)
    assert FIRST in refused.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"name": SECOND},
        {"kind": "other"},
        {"kind": "incremental"},
        {"parent": SECOND},
        {"parent": "../../etc"},
        {"created": "x"},
        {"record": []},
        {"xml": 1},
        {"disks": []},
        {"disks": [{"name": "root"}]},
        {"disks": [{"name": "a", "file": "../x", "size": 1, "bytes": 1, "digest": ""}]},
        {"disks": [{"name": "a", "file": "/x", "size": 1, "bytes": 1, "digest": ""}]},
        {"disks": [{"name": "../a", "file": "x", "size": 1, "bytes": 1, "digest": ""}]},
        {"disks": 7},
    ],
)
def test_a_damaged_manifest_is_refused(shelf: Shelf, changes: dict[str, Any]) -> None:
    put(shelf, FIRST)
    path = shelf.place(FIRST).manifest
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(errors.RefusedError):
        backups.read(shelf, FIRST)
    assert backups.readable(shelf) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_no_manifest_is_no_backup(shelf: Shelf, text: str) -> None:
    put(shelf, FIRST)
    shelf.place(FIRST).manifest.write_text(text)
    with pytest.raises(errors.RefusedError):
        backups.read(shelf, FIRST)


def test_what_killed_commands_left_is_cleared(shelf: Shelf) -> None:
    put(shelf, FIRST)
    draft = files.temporary(shelf.place(SECOND).directory)
    draft.mkdir()
    (draft / "root.qcow2").write_bytes(b"half")
    place = shelf.place(FIRST)
    place.beside("root.qcow2").write_bytes(b"half")
    (place.directory / ".tmp-backup.json-abcd").write_bytes(b"half")
    backups.clear(shelf)
    assert sorted(path.name for path in shelf.directory.iterdir()) == [FIRST]
    assert sorted(path.name for path in place.directory.iterdir()) == ["backup.json", "root.qcow2"]
    backups.clear(Shelf(shelf.directory / "nothing"))


def test_what_is_not_certainly_a_backup_of_ours_stays(shelf: Shelf, tmp_path: pathlib.Path) -> None:
    """In `--to DIR` other people's files may lie beside the backups."""
    put(shelf, FIRST)
    directory = shelf.directory
    outside = tmp_path / "outside"
    (outside / "file").parent.mkdir()
    (outside / "file").write_text("stays")
    for name in (".tmp-uploads", f".tmp-{SECOND}", f".tmp-{SECOND}-abcdefgh", ".tmp-web-01234567"):
        (directory / name).mkdir()
        (directory / name / "file").write_text("stays")
    (directory / f".tmp-{SECOND}-01234567").symlink_to(outside)
    (directory / f".tmp-{SECOND}-89abcdef").write_text("stays")
    # Named as a backup would be, and none: somebody's releases.
    release = shelf.place(SECOND).directory
    release.mkdir()
    for name in (".tmp-cache", "lifted-backup.json", "lifted-root.qcow2"):
        (release / name).write_text("stays")
    before = sorted(tmp_path.rglob("*"))
    backups.clear(shelf)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_draft_of_somebody_else_stays(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    put(shelf, FIRST)
    draft = files.temporary(shelf.place(SECOND).directory)
    draft.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: draft.stat().st_uid + 1)
    backups.clear(shelf)
    assert draft.is_dir()


@pytest.mark.parametrize("died_after", [0, 1, 2])
def test_a_backup_gets_other_images_wholly_or_not_yet(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, died_after: int
) -> None:
    old = put(shelf, FIRST)
    place = shelf.place(FIRST)
    place.beside("root.qcow2").write_bytes(b"new image")
    new = put(Shelf(shelf.directory / "aside"), FIRST, content=b"new image")
    moves = 0

    def dying(self: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
        nonlocal moves
        if moves == died_after:
            raise KeyboardInterrupt
        moves += 1
        self.replace(target)
        return target

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "rename", dying)
        with pytest.raises(KeyboardInterrupt):
            backups.lift(place, new)
    backups.clear(shelf)
    found = backups.read(shelf, FIRST)
    assert found in ((old,) if died_after == 0 else (new,))
    assert place.file("root.qcow2").stat().st_size == found.bytes
    assert sorted(path.name for path in place.directory.iterdir()) == ["backup.json", "root.qcow2"]
