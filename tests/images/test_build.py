"""Builds the tiny image from the distribution's packages, and disturbs it while it does."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import json
import os
import pathlib
import random
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import build, cache, catalog, shelf
from vmctl.machine.model import Image
from vmctl.store.layout import Layout

SCRIPT = """
import pathlib, sys
from vmctl.deadline import Deadline
from vmctl.images import build
from vmctl.store.layout import Layout
build.ensure(Layout(pathlib.Path(sys.argv[1])), "tiny", Deadline.after(300), lambda *_: None)
"""


def ensure(layout: Layout) -> Image:
    return build.ensure(layout, "tiny", Deadline.after(600), lambda *_: None)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Image]:
    layout = Layout(tmp_path_factory.mktemp("store"))
    return layout, ensure(layout)


def test_what_is_in_the_store(built: tuple[Layout, Image]) -> None:
    layout, image = built
    directory = layout.image(image.digest)
    assert os.listdir(layout.images) == [image.digest]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    facts = json.loads((directory / "image.json").read_text())
    assert facts["digest"] == image.digest
    assert any(name.startswith("linux-image-") for name in facts["packages"])
    assert not any("cloud" in name for name in facts["packages"])
    assert shelf.damage(layout, image.digest) == []


def test_image_knows_nothing_of_the_host(built: tuple[Layout, Image]) -> None:
    _, image = built
    content = pathlib.Path(image.initrd).read_bytes()
    for secret in (str(cache.directory()), os.uname().nodename, "deb.debian.org", "sources.list"):
        assert len(secret) < 6 or secret.encode() not in content


def test_second_build_gives_the_same_bytes(
    built: tuple[Layout, Image], tmp_path: pathlib.Path
) -> None:
    before = os.umask(0o077)
    try:
        again = ensure(Layout(tmp_path / "store"))
    finally:
        os.umask(before)
    assert again.digest == built[1].digest


def test_present_image_is_returned_at_once(built: tuple[Layout, Image]) -> None:
    layout, image = built
    told: list[str] = []
    found = build.ensure(layout, "tiny", Deadline.after(0), lambda what, *_: told.append(what))
    assert found == image == catalog.find(layout, "tiny")
    assert told == []


def test_renew_builds_only_what_has_changed(built: tuple[Layout, Image]) -> None:
    layout, image = built
    again = build.renew(layout, "tiny", Deadline.after(600), lambda *_: None, force=False)
    assert again == (image, False)


def test_damage_is_seen_and_mended(built: tuple[Layout, Image], tmp_path: pathlib.Path) -> None:
    layout = Layout(tmp_path / "store")
    shutil.copytree(built[0].home, layout.home)
    image = catalog.find(layout, "tiny")
    with open(image.initrd, "r+b") as stream:
        stream.write(b"damaged")
    assert shelf.damage(layout, image.digest) == ["initrd"]
    build.renew(layout, "tiny", Deadline.after(600), lambda *_: None, force=True)
    assert shelf.damage(layout, image.digest) == []


def test_of_two_at_once_one_builds(tmp_path: pathlib.Path) -> None:
    layout = Layout(tmp_path / "store")
    told: list[str] = []

    def work(_: int) -> Image:
        return build.ensure(layout, "tiny", Deadline.after(600), lambda what, *_: told.append(what))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, range(2))
    assert first == second
    assert told.count("Unpacking packages") == 1


def test_killed_at_any_moment_the_next_build_is_fine(
    built: tuple[Layout, Image], tmp_path: pathlib.Path
) -> None:
    layout = Layout(tmp_path / "store")
    moments = random.Random(7)  # a fixed seed: the same moments in each run
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, layout.home], start_new_session=True
        )
        time.sleep(moments.uniform(0.5, 7.0))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        found = catalog.find(layout, "tiny")
        assert not found.present or shelf.damage(layout, found.digest) == []
    assert ensure(layout).digest == built[1].digest
    build.renew(layout, "tiny", Deadline.after(600), lambda *_: None, force=True)
    assert os.listdir(layout.images) == [built[1].digest]


def test_works_without_network_once_everything_was_fetched(
    built: tuple[Layout, Image], tmp_path: pathlib.Path, no_network: None
) -> None:
    assert ensure(Layout(tmp_path / "store")).digest == built[1].digest


def test_says_what_it_lacks_without_network(
    tmp_path: pathlib.Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    layout = Layout(tmp_path / "store")
    with pytest.raises(errors.HostError) as caught:
        ensure(layout)
    assert "/etc/apt" in caught.value.hint
    assert os.listdir(layout.images) == []


@pytest.fixture
def no_network(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send apt to a proxy that is not there: what a host without a network is like."""
    config = tmp_path / "apt.conf"
    config.write_text(
        'Acquire::http::Proxy "http://127.0.0.1:9";\nAcquire::https::Proxy "http://127.0.0.1:9";\n'
        "Acquire::Retries 0;\n"
    )
    monkeypatch.setenv("APT_CONFIG", str(config))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def test_full_disk_is_said_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    home = tmp_path / "small"
    home.mkdir()
    if os.geteuid() != 0 or libc.mount(b"tmpfs", bytes(home), b"tmpfs", 0, b"size=60m") != 0:
        pytest.skip("only root can mount a small file system here")
    try:
        layout = Layout(home)
        with pytest.raises(errors.HostError, match=r"full|No space"):
            ensure(layout)
        assert os.listdir(layout.images) == []
        assert not catalog.find(layout, "tiny").present
    finally:
        libc.umount2(bytes(home), 2)
