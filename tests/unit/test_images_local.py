"""Finding a user's disk image in the store; a file that is known is not opened."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import catalog, drafts, drivers, local
from vmctl.machine.model import DiskFormat, Image
from vmctl.store import files
from vmctl.store.layout import Layout

RAW = DiskFormat.RAW
QCOW2 = DiskFormat.QCOW2
DIGEST = "cd" * 32


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    return Layout(tmp_path / "store")


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    """A file that the gate refuses at its first bytes: whoever opens it is found out."""
    path = tmp_path / "disk.img"
    path.write_bytes(b"<html>".ljust(512))
    return path


def put(layout: Layout, file: pathlib.Path, format_: DiskFormat = RAW) -> None:
    """Put a copy of `file` into the store, as `ensure` does."""
    directory = layout.image(DIGEST)
    files.make_directory(directory)
    files.make_directory(layout.image_names)
    (directory / catalog.disk_name(format_)).write_bytes(b"x")
    facts = {
        "name": "another-name.img",
        "disk_format": format_.value,
        "size": 12345 * 512,
        "drivers": sorted(drivers.STANDARD),
    }
    files.write_json(directory / catalog.FACTS, facts)
    known = local._File(layout, str(file), format_)
    record = {
        "digest": DIGEST,
        "identity": local._identity(file.stat()),
        "disk_format": format_.value,
    }
    files.write_json(known.record, record)


def ensure(layout: Layout, file: pathlib.Path) -> Image:
    return local.ensure(layout, str(file), RAW, Deadline.after(5), lambda *_: None)


@pytest.mark.parametrize("format_", DiskFormat)
def test_known_file_is_not_opened(
    layout: Layout, file: pathlib.Path, format_: DiskFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(layout, file, format_)
    image = local.find(layout, str(file), format_)
    assert image.present
    assert image.name == "disk.img", "the name of the user's file, not of the first such content"
    assert image.disk == str(layout.image(DIGEST) / f"disk.{format_}")
    assert (image.disk_format, image.size) == (format_, 12345 * 512)
    assert (image.kernel, image.initrd, image.efi_kernel, image.cmdline) == ("", "", "", "")
    assert image.drivers == {"virtio", "ahci", "ide", "e1000", "e1000e"}
    assert (image.ready_pattern, image.agent, image.login) == ("", False, "")
    assert local.ensure(layout, str(file), format_, Deadline.after(0), lambda *_: None) == image
    monkeypatch.chdir(file.parent)
    assert local.find(layout, "./disk.img", format_) == image


def changes(file: pathlib.Path) -> Iterator[str]:
    """Change the file in every way, one after the other."""
    status = file.stat()
    file.write_bytes(b"<HTML>".ljust(512))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    yield "content, with its old time"
    file.write_bytes(b"<html>".ljust(1024))
    yield "size"
    os.utime(file, (1, 1))
    yield "time"
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    other.rename(file)
    yield "another file in its place"


def test_file_that_changed_in_any_way_is_looked_at_anew(layout: Layout, file: pathlib.Path) -> None:
    put(layout, file)
    for _ in changes(file):
        for look in (lambda: local.find(layout, str(file), RAW), lambda: ensure(layout, file)):
            with pytest.raises(errors.RefusedError, match="a web page"):
                look()
        put(layout, file)
        assert local.find(layout, str(file), RAW).present


def test_another_declared_format_is_looked_at_anew(layout: Layout, file: pathlib.Path) -> None:
    put(layout, file, RAW)
    with pytest.raises(errors.RefusedError, match="declared as qcow2"):
        local.find(layout, str(file), QCOW2)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"digest": "../../etc"}', b'{"identity": null, "digest": 7}'],
)
def test_damaged_record_counts_as_none(layout: Layout, file: pathlib.Path, content: bytes) -> None:
    put(layout, file)
    local._File(layout, str(file), RAW).record.write_bytes(content)
    with pytest.raises(errors.RefusedError):
        local.find(layout, str(file), RAW)


@pytest.mark.parametrize("name", ["disk.raw", catalog.FACTS])
def test_copy_that_lacks_a_file_counts_as_none(
    layout: Layout, file: pathlib.Path, name: str
) -> None:
    put(layout, file)
    (layout.image(DIGEST) / name).unlink()
    with pytest.raises(errors.RefusedError):
        local.find(layout, str(file), RAW)


def test_missing_file(layout: Layout, file: pathlib.Path) -> None:
    put(layout, file)
    file.unlink()
    for look in (lambda: local.find(layout, str(file), RAW), lambda: ensure(layout, file)):
        with pytest.raises(errors.NotFoundError, match="There is no image"):
            look()


def test_refusal_creates_nothing(layout: Layout, file: pathlib.Path) -> None:
    with pytest.raises(errors.RefusedError):
        local.find(layout, str(file), RAW)
    assert not layout.home.exists()


def test_two_files_never_share_a_record(layout: Layout) -> None:
    one, other = (local._File(layout, path, RAW) for path in ("/a/disk.img", "/b/disk.img"))
    assert one.record != other.record
    assert one.record.parent == layout.image_names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/Debian 12.img", "Debian 12.img"),
        ("/a/\x1b[31mred\n", "?[31mred?"),
        ("/a/\udcff.img", "?.img"),
        ("/a/größe", "größe"),
    ],
)
def test_name_can_be_shown_and_written_as_xml(layout: Layout, path: str, name: str) -> None:
    known = local._File(layout, path, RAW)
    assert known.name == name
    assert known.key


def test_image_of_another_name_is_the_same_image(layout: Layout, file: pathlib.Path) -> None:
    put(layout, file)
    stored = catalog.stored(layout, DIGEST)
    assert stored is not None
    assert dataclasses.replace(stored, name="disk.img") == local.find(layout, str(file), RAW)


def test_only_the_leftovers_of_one_image_are_cleared(layout: Layout) -> None:
    for directory in (layout.images, layout.image_names):
        files.make_directory(directory)
    mine = files.temporary(layout.images / "tiny")
    others = [
        files.temporary(layout.images / "tiny-2"),
        files.temporary(layout.images / "tin"),
        files.temporary(layout.image_names / "tiny-2.json"),
        layout.images / DIGEST,
        layout.image_names / "tiny.json",
    ]
    record = files.temporary(layout.image_names / "tiny.json")
    for path in (mine, record, *others):
        path.mkdir() if path.parent == layout.images else path.touch()
    assert drafts.left(layout, "tiny(-2)?") == {"tiny", "tiny-2"}
    drafts.clear(layout, "tiny")
    assert not mine.exists()
    assert not record.exists()
    assert all(path.exists() for path in others)
