"""Ctrl-C and SIGTERM while other programs make an image: all of them end, and nothing stays."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from vmctl.images import cache

NAME = "debian-12-min"
PATIENCE = 240.0
"""Seconds until mmdebstrap runs, on a busy machine; only a guard."""

END_SECONDS = 30.0
"""An interrupted build that goes on takes minutes."""


def commands(environment: bytes) -> list[str]:
    """Return the command lines of all processes whose environment has these bytes."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if environment in (path / "environ").read_bytes():
                words = (path / "cmdline").read_bytes().replace(b"\0", b" ")
                found.append(words.decode("utf-8", "replace"))
        except OSError:
            continue
    return found


@pytest.fixture
def env(tmp_path: pathlib.Path) -> dict[str, str]:
    """A store and a cache without finished images; the packages are those that are there."""
    own = tmp_path / "cache" / "vmctl"
    own.mkdir(parents=True)
    packages = cache.directory() / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    (own / "packages").symlink_to(packages)
    return {
        **os.environ,
        "XDG_CACHE_HOME": str(own.parent),
        "VMCTL_HOME": str(tmp_path / "store"),
        "NO_COLOR": "1",
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_while_mmdebstrap_runs(
    tmp_path: pathlib.Path, env: dict[str, str], number: signal.Signals
) -> None:
    mounts = pathlib.Path("/proc/self/mounts").read_text()
    mark = f"VMCTL_HOME={env['VMCTL_HOME']}".encode()
    with subprocess.Popen(
        [sys.executable, "-m", "vmctl", "image", "build", NAME],
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    ) as build:
        end = time.monotonic() + PATIENCE
        while not any("dpkg" in command for command in commands(mark)):
            assert build.poll() is None and time.monotonic() < end
            time.sleep(0.2)
        # Let it unpack a few packages.
        time.sleep(2)
        begun = time.monotonic()
        build.send_signal(number)
        _, said = build.communicate(timeout=END_SECONDS)
    assert build.returncode == 130, said
    assert "Interrupted." in said
    assert time.monotonic() - begun < END_SECONDS
    assert commands(mark) == []
    assert pathlib.Path("/proc/self/mounts").read_text() == mounts
    left = [path.name for path in (tmp_path / "store" / "images").iterdir()]
    assert left == []
    assert not (tmp_path / "cache" / "vmctl" / "images").exists()


def test_while_another_builds_it(tmp_path: pathlib.Path, env: dict[str, str]) -> None:
    """One that waits for the other's lock ends at once as well."""
    import fcntl

    locks = tmp_path / "store" / "locks"
    locks.mkdir(parents=True)
    with (locks / f"image-{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(
            [sys.executable, "-m", "vmctl", "image", "build", NAME], env=env
        ) as build:
            time.sleep(2)
            build.send_signal(signal.SIGINT)
            assert build.wait(END_SECONDS) == 130
