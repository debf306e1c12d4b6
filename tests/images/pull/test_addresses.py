"""Pulls what an address leads to, with its digest or without."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.images import publisher as publishing
from tests.images.publisher import Publisher
from tests.images.pull import trial
from tests.images.pull.trial import DISK, QCOW2
from vmctl import errors
from vmctl.images import pins, pull
from vmctl.machine.model import Image
from vmctl.store.layout import Layout


def address(layout: Layout, publisher: Publisher, disk: bytes) -> Image:
    url, digest = publisher.url(DISK), publishing.sha256(disk)
    return pull.ensure_address(layout, url, digest, QCOW2, lambda *_: None)


def test_an_address_with_its_digest(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.offer(publisher, disks[0])
    url, digest = publisher.url(DISK), publishing.sha256(disks[0])
    absent = pull.find_address(layout, url, digest, QCOW2)
    assert not absent.present
    assert not layout.home.exists()
    image = address(layout, publisher, disks[0])
    assert image == pull.find_address(layout, url, digest, QCOW2)
    assert (image.digest, image.name, image.size) == (digest, "trial-amd64.qcow2", 32 << 20)
    assert pathlib.Path(image.disk).read_bytes() == disks[0]
    address(layout, publisher, disks[0])
    assert len(publisher.asked(DISK)) == 1
    listed = json.loads(trial.vmctl("image", "list", "--json").stdout)
    assert url in [each.get("source") for each in listed]
    with pytest.raises(errors.RefusedError, match="is not what it should be"):
        address(layout, publisher, disks[1])
    assert os.listdir(layout.images) == [digest]


def test_an_address_of_http_will_do_with_a_digest(layout: Layout, disks: list[bytes]) -> None:
    with publishing.published() as plain:
        trial.offer(plain, disks[0])
        with pytest.raises(errors.RefusedError, match="not https"):
            pull.pull_address(layout, plain.url(DISK), QCOW2, lambda *_: None)
        assert address(layout, plain, disks[0]).present


def test_an_address_alone_is_remembered(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.offer(publisher, disks[0])
    url = publisher.url(DISK)

    def pulled(*, consent: bool = False) -> tuple[Image, bool]:
        return pull.pull_address(layout, url, QCOW2, lambda *_: None, consent=consent)

    image, new = pulled()
    assert new
    assert image.digest == publishing.sha256(disks[0])
    assert pulled() == (image, False)
    trial.offer(publisher, disks[1])
    assert pulled() == (image, False), "what is there stays as it is"
    subprocess.run(["rm", "-r", layout.image(image.digest)], check=True)
    with pytest.raises(errors.RefusedError, match="has changed"):
        pulled()
    newer, new = pulled(consent=True)
    assert (newer.digest, new) == (publishing.sha256(disks[1]), True)
    known = pins.read(layout, url)
    assert known is not None
    assert known.sha256 == newer.digest


ADDRESS = """
import sys
from vmctl.images import pull
from vmctl.machine.model import DiskFormat
from vmctl.store.layout import Layout
image = pull.ensure_address(
    Layout.default(), sys.argv[1], sys.argv[2], DiskFormat.QCOW2, lambda *_: None)
print(image.disk)
"""


def test_one_download_of_an_address_for_many(
    layout: Layout, publisher: Publisher, disks: list[bytes]
) -> None:
    trial.offer(publisher, disks[0], pace=0.01)
    words = [sys.executable, "-c", ADDRESS, publisher.url(DISK), publishing.sha256(disks[0])]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        done = list(
            pool.map(
                lambda _: subprocess.run(words, check=False, capture_output=True, timeout=180),
                range(6),
            )
        )
    assert [each.returncode for each in done] == [0] * 6, done[0].stderr
    assert publisher.sent(DISK) == len(disks[0])
