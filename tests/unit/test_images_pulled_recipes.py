"""The recipes of pulled images that come with vmctl, and those of users."""

from __future__ import annotations

import pathlib
import urllib.parse

import pytest

from vmctl import errors, shipped
from vmctl.images import pins, pull, recipes
from vmctl.machine.model import DiskFormat
from vmctl.store.layout import Layout

PULLED = ["alpine", "cirros", "debian-12", "debian-13", "fedora", "ubuntu-24.04"]


@pytest.fixture(autouse=True)
def no_recipes_of_ones_own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_these_images_are_pulled() -> None:
    found = [name for name in recipes.names() if recipes.read(name).builder.value == "pull"]
    assert found == PULLED


@pytest.mark.parametrize("name", PULLED)
def test_a_recipe_says_how_it_is_verified(name: str) -> None:
    recipe = recipes.read(name)
    places = [recipe.url, recipe.checksums, *filter(None, [recipe.signature])]
    assert all(urllib.parse.urlsplit(place).scheme == "https" for place in places)
    directories = {place.rpartition("/")[0] for place in places}
    assert len(directories) == 1, "the checksums are those of the same release"
    assert "genericcloud" not in recipe.url, "its kernel drives neither AHCI nor e1000"
    assert all(keyring.startswith("/") for keyring in recipe.keyrings)
    assert bool(recipe.keyrings) or not recipe.signature
    assert recipe.cloud_init
    assert recipe.user
    assert recipe.memory
    assert recipe.ready is not None


def test_ones_own_recipe_goes_first(tmp_path: pathlib.Path) -> None:
    place = recipes.own_directory()
    assert place == tmp_path / "config" / "vmctl" / "images"
    place.mkdir(parents=True)
    text = (shipped.directory("images") / "debian-12.yaml").read_text()
    (place / "debian-12.yaml").write_text(text.replace("cloud.debian.org", "mirror.example.org"))
    assert recipes.read("debian-12").url.startswith("https://mirror.example.org/")
    assert "debian-13" in recipes.names()
    before = recipes.fingerprint("debian-12")
    (place / "debian-12.yaml").unlink()
    assert recipes.fingerprint("debian-12") != before


def test_a_name_cannot_lead_elsewhere() -> None:
    for name in ("../debian-12", "/etc/passwd", "", "."):
        with pytest.raises(errors.NotFoundError):
            recipes.path(name)


def test_pins(tmp_path: pathlib.Path) -> None:
    layout = Layout(tmp_path / "store")
    url = "https://example.org/disk.qcow2"
    assert pins.read(layout, url) is None
    assert not layout.home.exists()
    pin = pins.Pin(url=url, sha256="1" * 64, published="sha512:2", signer="somebody")
    pins.write(layout, pin)
    assert pins.read(layout, url) == pin
    (path,) = (layout.home / "image-pins").iterdir()
    for text in ("", "[]", '{"url": "other", "sha256": "1"}', '{"surprise": 1}'):
        path.write_text(text)
        assert pins.read(layout, url) is None


def test_an_absent_address_is_named_after_its_file(tmp_path: pathlib.Path) -> None:
    layout = Layout(tmp_path / "store")
    url = "https://example.org/a%20b%1b%5b31m.qcow2?token=x"
    image = pull.find_address(layout, url, "1" * 64, DiskFormat.QCOW2)
    assert image.name == "a b?[31m.qcow2"
    assert not image.present
