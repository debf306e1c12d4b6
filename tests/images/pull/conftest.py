"""A trusted publisher of this host, disks to publish, and a store of the test's own."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest
import trustme

from tests.images import publisher as publishing
from tests.images.publisher import Publisher
from vmctl.images import download
from vmctl.store.layout import Layout


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Two qcow2 images of some MiB."""
    directory = tmp_path_factory.mktemp("disks")
    found = []
    for number in range(2):
        raw, image = directory / f"{number}.raw", directory / f"{number}.qcow2"
        with raw.open("wb") as stream:
            stream.write(os.urandom(4 << 20))
            stream.truncate(32 << 20)
        words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image]
        subprocess.run(words, check=True, timeout=60)
        found.append(image.read_bytes())
    return found


@pytest.fixture
def publisher(authority: trustme.CA) -> Iterator[Publisher]:
    with publishing.published(authority) as made:
        yield made


@pytest.fixture(autouse=True)
def surroundings(
    authority: trustme.CA, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("VMCTL_HOME", str(tmp_path / "store"))
    monkeypatch.setattr(download, "_TRIES", 2)


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    return Layout(tmp_path / "store")
