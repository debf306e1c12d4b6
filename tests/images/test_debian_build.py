"""Builds the Debian image from packages and looks into it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable

import pytest

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.images import build, cache, catalog, debian, shelf
from vmctl.machine.model import Image
from vmctl.store.layout import Layout

NAME = "debian-12-min"
SCRIPT = f"""
import pathlib, sys
from vmctl.deadline import Deadline
from vmctl.images import build
from vmctl.store.layout import Layout
build.ensure(Layout(pathlib.Path(sys.argv[1])), "{NAME}", Deadline.after(900), lambda *_: None)
"""
ROOT_OFFSET = 18 << 20


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Image]:
    layout = Layout(tmp_path_factory.mktemp("store"))
    return layout, build.ensure(layout, NAME, Deadline.after(1500), lambda *_: None)


@pytest.fixture(scope="module")
def raw(built: tuple[Layout, Image], tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    disk = tmp_path_factory.mktemp("raw") / "disk.raw"
    subprocess.run(
        ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", built[1].disk, disk], check=True
    )
    return disk


def debugfs(raw: pathlib.Path, request: str) -> str:
    done = subprocess.run(
        ["debugfs", "-R", request, f"{raw}?offset={ROOT_OFFSET}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_what_is_in_the_store(built: tuple[Layout, Image]) -> None:
    layout, image = built
    facts = json.loads((layout.image(image.digest) / catalog.FACTS).read_text())
    assert set(facts["files"]) == {"disk.qcow2", "kernel", "bzimage", "initrd"}
    assert image.size == debian.DISK_SIZE
    assert image.cloud_init
    assert image.user == "debian"
    assert any(name.startswith("linux-image-6") for name in facts["packages"])
    assert not any("cloud-amd64" in name for name in facts["packages"] if "linux" in name)
    assert shelf.damage(layout, image.digest) == []
    assert build.renew(layout, NAME, Deadline.after(60), lambda *_: None, force=False)[1] is False


def test_file_system_is_sound(raw: pathlib.Path) -> None:
    subprocess.run(["e2fsck", "-fn", f"{raw}?offset={ROOT_OFFSET}"], check=True)


def test_nothing_of_the_host_is_in_the_disk(raw: pathlib.Path, tmp_path: pathlib.Path) -> None:
    text = "".join(
        path.read_text("utf-8", "replace")
        for path in (
            pathlib.Path("/etc/apt/sources.list"),
            *pathlib.Path("/etc/apt").glob("sources.list.d/*"),
            *pathlib.Path("/etc/apt").glob("apt.conf.d/*"),
        )
        if path.is_file()
    )
    # Sources and proxies, not what comments and the packages themselves mention.
    lines = re.findall(r"(?im)^(?:deb |URIs:|acquire::.*proxy).*", text)
    urls = re.findall(r"https?://[^\s\"']+", "\n".join(lines))
    mirrors = {urllib.parse.urlsplit(url).hostname for url in urls}
    strange = {host for host in mirrors if host and not host.endswith("debian.org")}
    words = [*strange, "repository ./", "/.tmp-", str(pathlib.Path.home() / ".cache")]
    patterns = tmp_path / "patterns"
    patterns.write_text("\n".join(words) + "\n")
    sources = debugfs(raw, "cat /etc/apt/sources.list")
    assert "http://deb.debian.org/debian bookworm main" in sources
    assert debugfs(raw, "ls -p /etc/apt/sources.list.d").count("/") == 14, "no other sources"
    assert "mmdebstrap" not in debugfs(raw, "ls -p /etc/apt/apt.conf.d")
    assert "mmdebstrap" not in debugfs(raw, "ls -p /etc/dpkg/dpkg.cfg.d")
    found = subprocess.run(
        ["grep", "-c", "-a", "-F", "-f", patterns, raw], capture_output=True, text=True, check=False
    )
    assert found.stdout.strip() == "0"


def test_every_machine_makes_its_own_identity(raw: pathlib.Path) -> None:
    assert debugfs(raw, "cat /etc/machine-id") == ""
    assert "ssh_host_" not in debugfs(raw, "ls -p /etc/ssh")
    assert "random-seed" not in debugfs(raw, "ls -p /var/lib/systemd")
    assert re.search(r"^root:(\*|!)", debugfs(raw, "cat /etc/shadow"), re.MULTILINE)
    assert "debian" not in debugfs(raw, "cat /etc/shadow")
    assert "/journal/" not in debugfs(raw, "ls -p /var/log")


def test_owners_and_capabilities_are_kept(raw: pathlib.Path) -> None:
    assert re.search(r"User: +0 +Group: +0", debugfs(raw, "stat /usr/bin/sudo"))
    assert re.search(r"Mode: +04755", debugfs(raw, "stat /usr/bin/sudo"))
    assert re.search(r"Group: +[1-9]", debugfs(raw, "stat /etc/shadow"))


def test_partition_table_is_understood(raw: pathlib.Path) -> None:
    told = subprocess.run(
        ["blkid", "-p", "-o", "export", raw], capture_output=True, text=True, check=True
    )
    assert "PTTYPE=gpt" in told.stdout


def test_another_store_takes_it_from_the_cache(
    built: tuple[Layout, Image], tmp_path: pathlib.Path
) -> None:
    told: list[str] = []
    again = build.ensure(
        Layout(tmp_path / "store"), NAME, Deadline.after(120), lambda what, *_: told.append(what)
    )
    assert again.digest == built[1].digest
    assert "Installing packages" not in told


def test_killed_build_ends_at_once_and_is_cleared_by_the_next(
    built: tuple[Layout, Image], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "store")
    with monkeypatch.context() as patch:
        # Packages are there, a finished image is not.
        own = tmp_path / "cache/vmctl"
        own.mkdir(parents=True)
        (own / "packages").symlink_to(cache.directory() / "packages")
        patch.setenv("XDG_CACHE_HOME", str(own.parent))
        child = subprocess.Popen([sys.executable, "-c", SCRIPT, layout.home])
    wait_until(lambda: any(layout.images.glob(".tmp-*/*/tree/var/lib/dpkg")))
    child.kill()
    child.wait()
    wait_until(lambda: not mentioned(layout.home))
    assert any(layout.images.iterdir()), "what was left is there"
    image = build.ensure(layout, NAME, Deadline.after(120), lambda *_: None)
    assert [path.name for path in layout.images.iterdir()] == [image.digest]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def mentioned(place: pathlib.Path) -> bool:
    """Tell whether a program that has this place among its arguments is running."""
    found = False
    for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found = found or os.fsencode(place) in file.read_bytes()
    return found


def test_missing_program_is_said(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = process.find
    monkeypatch.setattr(process, "find", lambda name: None if name == "mmdebstrap" else find(name))
    with pytest.raises(errors.HostError) as caught:
        build.ensure(Layout(tmp_path / "store"), NAME, Deadline.after(60), lambda *_: None)
    assert "apt install mmdebstrap" in caught.value.hint


def test_lack_of_room_is_said_before_anything_is_done(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 << 20))
    layout = Layout(tmp_path / "store")
    with pytest.raises(errors.HostError, match=r"3 ?GiB .* 5 MiB free"):
        build.ensure(layout, NAME, Deadline.after(60), lambda *_: None)
    assert list(layout.images.iterdir()) == []
