"""Putting images into the store: named after what they hold, whole ones kept, damaged replaced."""

from __future__ import annotations

import hashlib
import json
import pathlib
import stat
from typing import Any

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import catalog, drivers, shelf
from vmctl.machine.model import DiskFormat, Image
from vmctl.spec import recipe
from vmctl.store import files, locks
from vmctl.store.layout import Layout

RAW = DiskFormat.RAW
CONTENT = b"a disk"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    layout = Layout(tmp_path / "store")
    files.make_directory(layout.images)
    files.make_directory(layout.locks)
    return layout


def drafted(layout: Layout, content: bytes = CONTENT) -> pathlib.Path:
    draft = files.temporary(layout.images / "mine")
    draft.mkdir(mode=0o700)
    (draft / "disk.raw").write_bytes(content)
    return draft


def facts(**more: Any) -> dict[str, Any]:
    return {**shelf.disk_facts(RAW, 512, len(CONTENT), SHA256, "a trial"), **more}


def publish(layout: Layout, known: dict[str, Any], content: bytes = CONTENT) -> Image:
    return shelf.publish(layout, drafted(layout, content), known, "Image 'x'", Deadline.after(1))


def test_an_image_is_called_after_its_facts(layout: Layout) -> None:
    image = publish(layout, facts())
    known = {"format": 1, **facts()}
    assert image.digest == hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    assert catalog.facts(layout, image.digest) == known | {"digest": image.digest}
    assert publish(layout, facts(user="dev")).digest != image.digest
    assert shelf.damage(layout, image.digest) == []


def test_digests_stay_what_they_were() -> None:
    """Machines know their images by them."""
    known = {"format": 1, "name": "x", "files": {"disk.raw": {"size": 6, "sha256": SHA256}}}
    assert (
        shelf._digest(known) == "00ac4f1de0a67beb5597f006e364aac036f99655d7c323b7a82c8458a295064f"
    )


def test_a_lone_disk_is_called_after_its_content(layout: Layout) -> None:
    image = publish(layout, facts(name="disk.img", digest=SHA256))
    assert (image.digest, image.name, image.size) == (SHA256, "disk.img", 512)
    assert image.drivers == {"virtio", "ahci", "ide", "e1000", "e1000e"}
    directory = layout.image(SHA256)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    assert stat.S_IMODE((directory / catalog.FACTS).stat().st_mode) == 0o644


def test_one_that_is_there_and_whole_stays(layout: Layout) -> None:
    first = publish(layout, facts(name="first", digest=SHA256))
    inode = layout.image(SHA256).stat().st_ino
    assert publish(layout, facts(name="second", digest=SHA256)) == first
    assert layout.image(SHA256).stat().st_ino == inode


@pytest.mark.parametrize("name", ["disk.raw", catalog.FACTS])
@pytest.mark.parametrize("gone", [True, False])
def test_one_that_is_damaged_is_replaced(layout: Layout, name: str, gone: bool) -> None:
    image = publish(layout, facts(digest=SHA256))
    path = layout.image(SHA256) / name
    path.unlink()
    if not gone:
        path.write_bytes(b"damaged")
    if name != catalog.FACTS:
        assert shelf.damage(layout, SHA256) == [name]
    assert publish(layout, facts(digest=SHA256)) == image
    assert shelf.damage(layout, SHA256) == []
    assert path.read_bytes().startswith(b"{" if name == catalog.FACTS else CONTENT)


def test_two_with_the_same_content_wait_for_each_other(layout: Layout) -> None:
    with (
        locks.hold(layout.lock("image", SHA256), None, "Image 'x'"),
        pytest.raises(errors.ConflictError, match="Image 'x'"),
    ):
        shelf.publish(layout, drafted(layout), facts(digest=SHA256), "Image 'x'", Deadline.after(0))
    assert not layout.image(SHA256).exists()


def test_a_file_is_moved_into_a_draft(tmp_path: pathlib.Path) -> None:
    source, place = tmp_path / "source", tmp_path / "place"
    source.write_bytes(CONTENT)
    source.chmod(0o600)
    shelf.take(source, place)
    assert not source.exists()
    assert (place.read_bytes(), stat.S_IMODE(place.stat().st_mode)) == (CONTENT, 0o644)
    assert shelf.described(place) == {"size": len(CONTENT), "sha256": SHA256}


def test_a_full_disk_is_said(layout: Layout) -> None:
    full = errors.ProgramError("cp failed.", details="cp: No space left on device")
    with (
        pytest.raises(errors.HostError, match=f"The disk of '{layout.home}' is full"),
        shelf.failures_said(layout),
    ):
        raise full
    with pytest.raises(errors.HostError, match="'/a/b'"), shelf.failures_said(layout):
        raise OSError(28, "No space left on device", "/a/b")
    other = errors.ProgramError("cp failed.", details="cp: no such file")
    with pytest.raises(errors.ProgramError), shelf.failures_said(layout):
        raise other


def test_the_drivers_that_recipes_can_name() -> None:
    assert {str(each) for each in recipe.Driver} == set(drivers.STANDARD)
