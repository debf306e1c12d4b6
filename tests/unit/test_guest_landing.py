"""What a hostile guest sends stays where it should be."""

from __future__ import annotations

import os
import pathlib
import stat

import pytest

from vmctl import errors
from vmctl.guest import landing
from vmctl.guest.archive import Entry, Kind
from vmctl.guest.landing import Landing, Summary


def file(name: bytes, content: bytes = b"x", **more: object) -> tuple[Entry, bytes]:
    facts: dict[str, object] = {"name": name, "kind": Kind.FILE, "size": len(content)}
    return Entry(**{**facts, **more}), content  # type: ignore[arg-type]


def folder(name: bytes, **more: object) -> tuple[Entry, bytes]:
    facts: dict[str, object] = {"name": name, "kind": Kind.DIRECTORY, "mode": 0o755}
    return Entry(**{**facts, **more}), b""  # type: ignore[arg-type]


def link(name: bytes, target: bytes, kind: Kind = Kind.LINK) -> tuple[Entry, bytes]:
    return Entry(name=name, kind=kind, target=target), b""


def land(target: pathlib.Path, *entries: tuple[Entry, bytes]) -> Summary:
    with landing.within(target.parent) as place:
        put(place, *entries)
        place.finish()
        place.move(b"copy", target)
        return place.summary


def put(place: Landing, *entries: tuple[Entry, bytes]) -> None:
    for entry, content in entries:
        place.put((b"copy", *landing.split(entry.name)), entry, [content] if content else [])


@pytest.fixture
def target(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    (tmp_path / "in").mkdir()
    return tmp_path / "in" / "copy"


def untouched(target: pathlib.Path) -> None:
    """Nothing outside of the target has changed, and nothing is left beside it."""
    precious = target.parents[1] / "precious"
    assert os.listdir(precious) == ["file"]
    assert (precious / "file").read_text() == "mine"
    assert set(os.listdir(target.parents[1])) == {"precious", "in"}
    assert set(os.listdir(target.parent)) <= {"copy"}


def test_a_tree(target: pathlib.Path) -> None:
    summary = land(
        target,
        folder(b".", mtime=1000),
        folder(b"./d", mode=0o500, mtime=2000),
        file(b"./d/f", b"hello", mode=0o640, mtime=3000),
        link(b"./d/l", b"f"),
        link(b"./up", b"d/f"),
        link(b"./d/again", b"./d/f", Kind.HARD_LINK),
        file(b"./empty", b""),
    )
    assert (target / "d" / "f").read_bytes() == b"hello"
    assert (target / "d" / "f").stat().st_mode & 0o7777 == 0o640
    assert (target / "d" / "f").stat().st_mtime == 3000
    assert (target / "d").stat().st_mode & 0o7777 == 0o700
    assert ((target / "d").stat().st_mtime, target.stat().st_mtime) == (2000, 1000)
    assert os.readlink(target / "d" / "l") == "f"
    assert (target / "d" / "again").stat().st_ino == (target / "d" / "f").stat().st_ino
    assert (summary.files, summary.left_out) == (3, [])
    untouched(target)


@pytest.mark.parametrize(
    "name", [b"/etc/x", b"../x", b"a/../../x", b"..", b"a/..", b"x/" * 300 + b"y", b"n" * 5000]
)
def test_names_that_escape_are_refused(target: pathlib.Path, name: bytes) -> None:
    with pytest.raises(errors.RefusedError, match="outside"):
        land(target, folder(b"."), file(name))
    assert not target.exists()
    untouched(target)


def test_nothing_is_written_through_a_link(target: pathlib.Path) -> None:
    for leads in (b"d", b"../../precious", b"/etc"):
        with pytest.raises(errors.RefusedError, match="link"):
            land(target, folder(b"d"), link(b"l", b"d"), link(b"x", leads), file(b"l/planted"))
        assert not target.exists()
        untouched(target)


def test_nothing_is_written_below_a_link_that_was_left_out(target: pathlib.Path) -> None:
    with pytest.raises(errors.RefusedError, match="link"):
        land(target, folder(b"."), link(b"l", b"/etc"), file(b"l/deep/planted"))
    untouched(target)


def test_a_link_is_replaced_and_not_followed(target: pathlib.Path) -> None:
    land(target, file(b"a", b"first"), link(b"b", b"a"), file(b"b", b"second"))
    assert (target / "a").read_bytes() == b"first"
    assert (target / "b").read_bytes() == b"second"
    assert not (target / "b").is_symlink()


@pytest.mark.parametrize(
    ("where", "leads"),
    [
        (b"l", b"/etc/passwd"),
        (b"l", b"../precious/file"),
        (b"d/l", b"../../x"),
        (b"l", b"d/../../x"),
        (b"l", b"d/.."),
        (b"l", b""),
        (b"l", b"//x"),
    ],
)
def test_links_that_lead_out_are_left_out(target: pathlib.Path, where: bytes, leads: bytes) -> None:
    summary = land(target, folder(b"."), folder(b"d"), link(where, leads))
    assert len(summary.left_out) == 1
    assert not (target / os.fsdecode(where)).is_symlink()


def test_links_that_stay_inside(target: pathlib.Path) -> None:
    links = {b"a": b"d/f", b"d/b": b"../a", b"d/e/c": b"../../a", b"d/e/g": b"../../..//.."}
    summary = land(target, *(link(name, leads) for name, leads in links.items()))
    assert len(summary.left_out) == 1
    for name in list(links)[:3]:
        assert (target / os.fsdecode(name)).is_symlink()


def test_no_chain_of_links_leads_out(target: pathlib.Path) -> None:
    """Each link by itself stays inside, and `..` behind a link would not."""
    land(
        target,
        folder(b"s1/s2"),
        link(b"s1/s2/up", b"../.."),
        link(b"out", b"s1/s2/up/../../precious"),
        link(b"near", b"s1/s2/up/s1"),
    )
    assert not (target / "out").is_symlink()
    assert os.path.realpath(target / "near") == str(target / "s1")


@pytest.mark.parametrize("name", [b"../../precious/file", b"/etc/passwd"])
def test_hard_links_out_are_refused(target: pathlib.Path, name: bytes) -> None:
    with pytest.raises(errors.RefusedError):
        land(target, link(b"h", name, Kind.HARD_LINK))
    untouched(target)


def test_hard_links_to_links_are_refused(target: pathlib.Path) -> None:
    with pytest.raises(errors.RefusedError, match="no file"):
        land(target, file(b"f"), link(b"l", b"f"), link(b"h", b"l", Kind.HARD_LINK))
    with pytest.raises(errors.HostError):
        land(target, link(b"h", b"nowhere", Kind.HARD_LINK))


def test_of_modes_only_permissions_are_kept(target: pathlib.Path) -> None:
    land(target, folder(b"d", mode=0o7777), file(b"f", mode=0o7755))
    assert stat.S_IMODE((target / "f").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o777


def test_devices_and_pipes_are_left_out(target: pathlib.Path) -> None:
    device = Entry(name=b"sda", kind=Kind.OTHER), b""
    summary = land(target, folder(b"."), device)
    assert summary.left_out == ["'sda' is neither file, directory nor link"]
    assert os.listdir(target) == []


def test_a_name_that_is_a_directory_and_a_file(target: pathlib.Path) -> None:
    with pytest.raises(errors.HostError):
        land(target, folder(b"d"), file(b"d"))
    with pytest.raises(errors.RefusedError):
        land(target, file(b"d"), file(b"d/f"))
    untouched(target)


def test_names_that_only_look_alike(target: pathlib.Path) -> None:
    land(target, file(b"a", b"1"), file(b"A", b"2"), file("é".encode(), b"3"), file(b"\xff", b"4"))
    assert sorted(path.read_bytes() for path in target.iterdir()) == [b"1", b"2", b"3", b"4"]


def test_zeros_become_holes(target: pathlib.Path) -> None:
    entry = Entry(name=b"s", kind=Kind.FILE, size=10 << 20, segments=((5 << 20, 3),))
    land(target, folder(b"."), (entry, b"abc"), file(b"z", bytes(1 << 20)))
    found = (target / "s").stat()
    assert (found.st_size, found.st_blocks * 512 < 1 << 20) == (10 << 20, True)
    assert (target / "s").read_bytes().strip(b"\0") == b"abc"
    assert (target / "z").stat().st_blocks * 512 < 1 << 19


def test_merging_replaces_links_of_the_destination(target: pathlib.Path) -> None:
    target.mkdir()
    (target / "kept").write_text("kept")
    (target / "f").symlink_to(target.parents[1] / "precious" / "file")
    land(target, file(b"f", b"new"), file(b"sub/g", b"g"))
    assert (target / "f").read_bytes() == b"new"
    assert not (target / "f").is_symlink()
    assert (target / "kept").read_text() == "kept"
    untouched(target)


def test_merging_goes_through_no_link(target: pathlib.Path) -> None:
    target.mkdir()
    (target / "d").symlink_to(target.parents[1] / "precious")
    with pytest.raises(errors.ConflictError, match="no directory"):
        land(target, folder(b"d"), file(b"d/file", b"overwritten"))
    untouched(target)


def test_a_directory_is_no_file(target: pathlib.Path) -> None:
    (target / "f").mkdir(parents=True)
    with pytest.raises(errors.ConflictError, match="is a directory"):
        land(target, file(b"f"))
    assert os.listdir(target.parent) == ["copy"]
