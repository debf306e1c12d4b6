"""Publishers of this host, with a certificate and without, and a cache of the test's own."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
import trustme

from tests.images import publisher as publishing
from tests.images.publisher import Publisher
from vmctl.images import download


@pytest.fixture(autouse=True)
def surroundings(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(download, "_POLL", 0.02)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publishing.published() as made:
        yield made


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[Publisher]:
    with publishing.published(authority) as made:
        yield made


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
