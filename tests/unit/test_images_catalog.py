from __future__ import annotations

import pathlib
import re
import shutil

import pytest

from vmctl import errors, shipped
from vmctl.images import catalog, recipes
from vmctl.store import files
from vmctl.store.layout import Layout

DIGEST = "ab" * 32


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    return Layout(tmp_path / "store")


def put(layout: Layout, *, recipe: str | None = None) -> pathlib.Path:
    """Put an image into the store as the builder does."""
    directory = layout.image(DIGEST)
    files.make_directory(directory)
    files.make_directory(layout.image_names)
    for name in (catalog.KERNEL, catalog.INITRD):
        (directory / name).write_bytes(b"x")
    files.write_json(directory / catalog.FACTS, catalog.promised("tiny") | {"digest": DIGEST})
    record = {"digest": DIGEST, "recipe": recipe or recipes.fingerprint("tiny")}
    files.write_json(layout.image_names / "tiny.json", record)
    return directory


def test_absent_image_says_what_its_recipe_promises(layout: Layout) -> None:
    image = catalog.find(layout, "tiny")
    assert not image.present
    assert image.drivers == {"virtio", "ahci", "ide", "e1000", "e1000e"}
    assert "console=ttyS0" in image.cmdline
    assert re.search(image.ready_pattern, "vmctl-tiny: ready")
    assert image.ready_timeout > 0
    assert image.agent
    assert not layout.home.exists(), "looking creates nothing"


def test_present_image_is_found_without_its_recipe_being_parsed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = put(layout)
    promised = catalog.find(layout, "tiny")
    monkeypatch.setattr(recipes, "read", None)
    image = catalog.find(layout, "tiny")
    assert image == promised
    assert image.digest == DIGEST
    assert image.kernel == str(directory / "kernel")
    assert image.initrd == str(directory / "initrd")


def test_image_of_an_older_recipe_is_absent(layout: Layout) -> None:
    put(layout, recipe="0" * 64)
    assert not catalog.find(layout, "tiny").present


@pytest.mark.parametrize("name", [catalog.KERNEL, catalog.INITRD, catalog.FACTS])
def test_image_that_lacks_a_file_is_absent(layout: Layout, name: str) -> None:
    (put(layout) / name).unlink()
    assert not catalog.find(layout, "tiny").present


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"digest": "../../etc"}', b"\xff"])
def test_damaged_record_counts_as_absent(layout: Layout, content: bytes) -> None:
    put(layout)
    (layout.image_names / "tiny.json").write_bytes(content)
    assert not catalog.find(layout, "tiny").present


@pytest.mark.parametrize("name", ["tny", "", "../tiny", "tiny.yaml", "/etc/passwd"])
def test_unknown_names_are_not_found(layout: Layout, name: str) -> None:
    with pytest.raises(errors.NotFoundError):
        catalog.find(layout, name)


def test_near_miss_is_suggested(layout: Layout) -> None:
    with pytest.raises(errors.NotFoundError) as caught:
        catalog.find(layout, "tinny")
    assert "tiny" in caught.value.hint


def test_fingerprint_changes_with_every_file_of_the_image(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "images"
    shutil.copytree(shipped.directory("images"), copy)
    monkeypatch.setattr(shipped, "directory", lambda _: copy)
    seen = {recipes.fingerprint("tiny")}
    for path in [copy / "tiny.yaml", *(p for p in (copy / "tiny").rglob("*") if p.is_file())]:
        path.write_bytes(path.read_bytes() + b"\n")
        seen.add(recipes.fingerprint("tiny"))
    assert len(seen) == 2 + len(recipes.files("tiny"))
