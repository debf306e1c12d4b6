from __future__ import annotations

import pathlib

import pytest

from vmctl import errors
from vmctl.images import cache, distribution, packages

RECORDS = """\
Package: qemu-guest-agent
Version: 1:7.2+dfsg-7
Depends: libc6 (>= 2.34), libglib2.0-0 (>= 2.63.3) | libglib2.0-0t64, init-helpers:any
Pre-Depends: init-system-helpers (>= 1.54~)
Section: otherosfs
Filename: pool/main/q/qemu/qemu-guest-agent_7.2.deb
Size: 346272
SHA256: ffdc7852decec129a903acf1b9ac083859cabee60e7b24477b652f36e228e808
Description: Guest-side agent
 SHA256: of something else, in a text

Package: libc6
Version: 2.36-9
Section: libs
Size: 100
SHA256: aa

Package: libc6
Version: 2.31-1
Section: libs
Size: 90
SHA256: bb

Package: installed-but-not-offered
Version: 1
"""


def test_records_of_apt_are_read() -> None:
    found = packages.parse_records(RECORDS)
    assert list(found) == ["qemu-guest-agent", "libc6"]
    agent = found["qemu-guest-agent"]
    assert agent.version == "1:7.2+dfsg-7"
    assert agent.size == 346272
    assert agent.sha256.startswith("ffdc7852")
    assert agent.depends == (
        *("init-system-helpers", "libc6", "libglib2.0-0", "libglib2.0-0t64", "init-helpers"),
    )
    assert not agent.holds_libraries
    assert found["libc6"].holds_libraries
    assert found["libc6"].sha256 == "aa", "the first record is the one that apt would take"


@pytest.mark.parametrize(
    ("text", "kernel"),
    [
        ("ID=debian\n", "linux-image-amd64"),
        ('ID="ubuntu"\nID_LIKE=debian\n', "linux-image-generic"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n", "linux-image-generic"),
    ],
)
def test_names_follow_the_distribution(tmp_path: pathlib.Path, text: str, kernel: str) -> None:
    (tmp_path / "os-release").write_text(text)
    assert distribution.names(tmp_path / "os-release").kernel == kernel


def test_other_distributions_are_told_the_way_out(tmp_path: pathlib.Path) -> None:
    (tmp_path / "os-release").write_text('ID=fedora\nPRETTY_NAME="Fedora Linux 40"\n')
    with pytest.raises(errors.HostError, match="'Fedora Linux 40'") as caught:
        distribution.names(tmp_path / "os-release")
    assert "vmctl image build tiny" in caught.value.hint


def test_kernel_packages_are_the_standard_ones() -> None:
    pattern = distribution.names().image
    assert pattern.fullmatch("linux-image-6.1.0-56-amd64")
    assert not pattern.fullmatch("linux-image-6.1.0-56-cloud-amd64")
    assert not pattern.fullmatch("linux-image-amd64")


def test_cache_gives_back_only_what_is_whole(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    download = tmp_path / "a.deb"
    download.write_bytes(b"package")
    digest = cache.sha256_of(download)
    assert cache.find_package(digest) is None
    kept = cache.keep_package(download, digest)
    assert not download.exists()
    assert cache.find_package(digest) == kept
    kept.write_bytes(b"damaged")
    assert cache.find_package(digest) is None
    assert not kept.exists()
