"""Pulls images from a publisher of this host: compared with its checksums, and remembered."""

from __future__ import annotations

import hashlib
import os
import pathlib
import subprocess
import sys

import pytest

from tests.images import publisher as publishing
from tests.images.publisher import Publisher
from tests.images.pull import trial
from tests.images.pull.trial import DISK, NAME, QCOW2, SUMS
from vmctl import errors
from vmctl.images import catalog, partial, recipes, shelf
from vmctl.spec import problems
from vmctl.store.layout import Layout


def test_what_is_in_the_store(layout: Layout, publisher: Publisher, disks: list[bytes]) -> None:
    trial.recipe(publisher)
    trial.offer(publisher, disks[0])
    absent = catalog.find(layout, NAME)
    assert not absent.present
    assert absent.cloud_init
    image = trial.ensure(layout)
    assert image.present
    assert image == catalog.find(layout, NAME)
    assert pathlib.Path(image.disk).read_bytes() == disks[0]
    assert (image.disk_format, image.size) == (QCOW2, 32 << 20)
    assert (image.cloud_init, image.user, image.ready_when) == (True, "trial", "ssh")
    assert image.kernel == ""
    assert image.drivers == {"virtio", "ahci"}
    assert pathlib.Path(image.disk).stat().st_mode & 0o777 == 0o644
    assert os.listdir(layout.images) == [image.digest]
    assert shelf.damage(layout, image.digest) == []
    facts = catalog.facts(layout, image.digest)
    assert facts is not None
    assert facts["source"] == publisher.url(DISK)
    assert facts["published"] == f"sha512:{hashlib.sha512(disks[0]).hexdigest()}"
    assert not list(partial.directory().glob("*.part"))
    assert trial.ensure(layout) == image
    assert len(publisher.requests) == 2


def test_an_image_that_is_there_is_looked_at_and_not_fetched(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.recipe(publisher)
    trial.offer(publisher, disks[0])
    image = trial.ensure(layout)
    assert trial.renew(layout) == (image, False)
    assert len(publisher.asked(SUMS)) == 2
    assert len(publisher.asked(DISK)) == 1


def test_a_change_that_nobody_signed_needs_consent(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.recipe(publisher)
    trial.offer(publisher, disks[0])
    image = trial.ensure(layout)
    trial.offer(publisher, disks[1])
    with pytest.raises(errors.RefusedError, match="has changed: it was 'sha512:") as caught:
        trial.renew(layout)
    assert caught.value.exit_code == 7
    assert f"vmctl image pull --renew {NAME}" in caught.value.hint
    assert catalog.find(layout, NAME) == image
    assert len(publisher.asked(DISK)) == 1, "refused before it is fetched"
    newer, made = trial.renew(layout, consent=True)
    assert made
    assert pathlib.Path(newer.disk).read_bytes() == disks[1]
    assert pathlib.Path(image.disk).read_bytes() == disks[0], "machines may be made from it"
    assert trial.renew(layout) == (newer, False)


def test_the_pin_outlives_the_image(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.recipe(publisher)
    trial.offer(publisher, disks[0])
    image = trial.ensure(layout)
    catalog.record_path(layout, NAME).unlink()
    subprocess.run(["rm", "-r", layout.image(image.digest)], check=True)
    trial.offer(publisher, disks[1])
    with pytest.raises(errors.RefusedError, match="has changed"):
        trial.ensure(layout)
    trial.offer(publisher, disks[0])
    assert trial.ensure(layout) == image


def test_without_checksums_the_first_pull_decides(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.recipe(publisher, checksums="")
    trial.offer(publisher, disks[0])
    image = trial.ensure(layout)
    assert trial.renew(layout) == (image, False)
    trial.offer(publisher, disks[1])
    with pytest.raises(errors.RefusedError, match="has changed"):
        trial.renew(layout)
    newer, made = trial.renew(layout, consent=True)
    assert made
    assert pathlib.Path(newer.disk).read_bytes() == disks[1]
    assert publisher.sent(DISK) == 2 * len(disks[0]) + len(disks[1]), "kept when it was refused"
    assert not publisher.asked(SUMS)


def test_other_keys_of_a_recipe_cost_no_download(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.recipe(publisher)
    trial.offer(publisher, disks[0])
    image = trial.ensure(layout)
    trial.recipe(publisher, user="other")
    assert not catalog.find(layout, NAME).present
    before = len(publisher.requests)
    other = trial.ensure(layout)
    assert other.user == "other"
    assert other.digest != image.digest
    assert pathlib.Path(other.disk).read_bytes() == disks[0]
    assert len(publisher.requests) == before, "not even a look"


def test_content_that_is_not_what_was_published_is_refused(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.recipe(publisher)
    trial.offer(publisher, disks[0])
    publisher.files[DISK].content = disks[1]
    with pytest.raises(errors.RefusedError, match="is not what it should be") as caught:
        trial.ensure(layout)
    assert caught.value.exit_code == 7
    for shown in (disks[0], disks[1]):
        assert hashlib.sha512(shown).hexdigest() in caught.value.message
    assert not list(partial.directory().glob("*.part")), "of no use to anybody"
    assert os.listdir(layout.images) == []
    assert not catalog.record_path(layout, NAME).exists()
    trial.offer(publisher, disks[1])
    assert trial.ensure(layout).present


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "has no sha512"),
        (b"<html><body>Log in</body></html>", "web page"),
        (b"ab" * 64 + b"  trial-amd64.qcow2\n" + b"cd" * 64 + b"  trial-amd64.qcow2\n", "2 diff"),
        (b"ab" * 32 + b"  trial-amd64.qcow2\n", "has no sha512"),
    ],
)
def test_checksums_of_no_use_are_refused(
    layout: Layout, publisher: Publisher, disks: list[bytes], text: bytes, words: str
) -> None:
    trial.recipe(publisher)
    trial.offer(publisher, disks[0])
    publisher.put(SUMS, text)
    with pytest.raises(errors.RefusedError, match=words):
        trial.ensure(layout)
    assert not publisher.asked(DISK)


@pytest.mark.parametrize("kind", ["backing", "raw", "text"])
def test_the_gate_judges_what_was_published_too(
    layout: Layout, publisher: Publisher, kind: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "bad.qcow2"
    if kind == "backing":
        words = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd"]
        subprocess.run([*words, path, "1M"], check=True)
    else:
        path.write_bytes(bytes(1 << 20) if kind == "raw" else b"just text")
    trial.recipe(publisher)
    trial.offer(publisher, path.read_bytes())
    with pytest.raises(errors.RefusedError) as caught:
        trial.ensure(layout)
    assert publisher.url(DISK) in caught.value.message
    assert "cache" not in caught.value.message
    assert os.listdir(layout.images) == []


def test_http_needs_more_than_checksums(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.offer(publisher, disks[0])
    with publishing.published() as plain:
        trial.offer(plain, disks[0])
        trial.recipe(publisher, url=plain.url(DISK))
        with pytest.raises(errors.HostError, match="over http"):
            trial.ensure(layout)
        trial.recipe(publisher, checksums=plain.url(SUMS))
        with pytest.raises(errors.RefusedError, match="not https"):
            trial.ensure(layout)
        trial.recipe(publisher, url=plain.url(DISK), checksums="")
        with pytest.raises(errors.RefusedError, match="not https"):
            trial.ensure(layout)
        assert not plain.requests


def test_recipes_of_ones_own_are_read_with_care(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.recipe(publisher)
    path = recipes.own_directory() / f"{NAME}.yaml"
    assert NAME in recipes.names()
    path.chmod(0o666)
    with pytest.raises(errors.RefusedError, match="others can change"):
        recipes.read(NAME)
    trial.recipe(publisher, builder="tiny")
    path.chmod(0o600)
    with pytest.raises(errors.UsageError, match="can only pull"):
        recipes.read(NAME)
    trial.recipe(publisher, name="another")
    with pytest.raises(errors.UsageError, match="calls its image 'another'"):
        recipes.read(NAME)
    trial.recipe(publisher, url="file:///etc/passwd")
    with pytest.raises(problems.SpecError) as caught:
        recipes.read(NAME)
    assert "must be an address" in caught.value.problems[0].message
    trial.recipe(publisher, url="")
    with pytest.raises(errors.UsageError, match="has no url"):
        trial.ensure(layout)
    (recipes.own_directory() / "Not a name.yaml").write_text("x")
    assert "Not a name" not in recipes.names()


def test_another_kind_of_checksum_is_no_change(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.recipe(publisher)
    trial.offer(publisher, disks[0])
    image = trial.ensure(layout)
    trial.recipe(publisher, checksum_kind="sha256")
    listed = f"{publishing.sha256(disks[0])} *trial-amd64.qcow2\n"
    publisher.put(SUMS, listed.encode())
    again, _ = trial.renew(layout)
    assert pathlib.Path(again.disk).read_bytes() == disks[0]
    assert image.present
    trial.recipe(publisher)
    trial.offer(publisher, disks[1])
    with pytest.raises(errors.RefusedError, match="has changed"):
        trial.renew(layout)


def test_the_library_for_http_is_loaded_only_to_fetch() -> None:
    script = (
        "import sys; import vmctl.cli.image, vmctl.images.pull, vmctl.lifecycle.up; "
        "sys.exit('urllib3' in sys.modules or 'http.client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
