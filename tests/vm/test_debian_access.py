"""Getting into a Debian guest: OpenSSH's server, sudo, GNU tar, a host key that is pinned."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.vm.conftest import PATIENCE, Site

pytestmark = pytest.mark.vm

MANY = 13
"""More commands at a time than sshd lets through one connection (MaxSessions)."""


@pytest.fixture(scope="module")
def machine(site: Site, debian: str) -> Iterator[str]:
    name = site.name("in")
    path = site.specs / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nproject: {name}\nimage: {debian}\nmemory: 512MiB\n"
        "accel: tcg\ndevices: virtio\n"
    )
    site.run("up", str(path))
    yield name
    site.run("down", "-y", name)


def execute(site: Site, *words: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        site.command("exec", *words),
        env={**site.env, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE * 2,
        check=False,
    )


def test_words_and_statuses(site: Site, machine: str) -> None:
    words = ("", "two  words", "'\"$HOME*", "a\nb", os.fsdecode(b"\xff\x81"))
    done = execute(site, machine, "--", "printf", "%s\\0", *words)
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in words]
    for script, status in (("exit 255", 255), ("kill -9 $$", 137), ("kill 0", 143)):
        done = execute(site, machine, "--", "sh", "-c", script)
        assert (done.returncode, done.stderr) == (status, b"")


def test_as_somebody_else(site: Site, machine: str) -> None:
    script = 'id -un; echo "$S"; pwd; exit 3'
    words = ("-u", "root", "-e", "S=x y", "-w", "/etc", machine, "--", "sh", "-c", script)
    done = execute(site, *words)
    assert (done.returncode, done.stdout) == (3, b"root\nx y\n/etc\n")
    assert execute(site, "-u", "nobody", machine, "--", "id", "-un").stdout == b"nobody\n"
    assert execute(site, "-u", "no-such", machine, "--", "id").returncode != 0


@pytest.mark.parametrize("user", [(), ("-u", "root")])
def test_a_timeout(site: Site, machine: str, user: tuple[str, ...]) -> None:
    words = ("--timeout", "5s", *user, machine, "--", "sh", "-c", "sleep 5551 & sleep 5552")
    assert execute(site, *words).returncode == 124
    look = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 555[12]'"
    end = time.monotonic() + PATIENCE
    while execute(site, machine, "--", "sh", "-c", look).stdout != b"0\n":
        assert time.monotonic() < end
        time.sleep(0.5)


def test_more_at_a_time_than_one_connection_takes(site: Site, machine: str) -> None:
    running = [
        site.start("exec", "-n", machine, "--", "sh", "-c", f"sleep 2; echo {number}")
        for number in range(MANY)
    ]
    outputs = [process.communicate(timeout=PATIENCE * 2)[0] for process in running]
    assert outputs == [f"{number}\n" for number in range(MANY)]


def test_copies(site: Site, machine: str, tmp_path: pathlib.Path) -> None:
    with (tmp_path / "holes").open("wb") as stream:
        stream.truncate(1 << 30)
        stream.seek(1 << 29)
        stream.write(b"in the middle")
    site.run("cp", str(tmp_path / "holes"), f"{machine}:")
    done = execute(site, machine, "--", "stat", "-c", "%s %b", "holes")
    size, blocks = map(int, done.stdout.split())
    assert (size, blocks * 512 < 1 << 20) == (1 << 30, True)
    (tmp_path / "back").mkdir()
    site.run("cp", f"{machine}:holes", str(tmp_path / "back"))
    back = tmp_path / "back" / "holes"
    assert (back.stat().st_size, back.stat().st_blocks * 512 < 1 << 20) == (1 << 30, True)
    with back.open("rb") as stream:
        stream.seek(1 << 29)
        assert stream.read(20).rstrip(b"\0") == b"in the middle"


def test_copies_as_root(site: Site, machine: str, tmp_path: pathlib.Path) -> None:
    refused = site.run("cp", f"{machine}:/etc/shadow", str(tmp_path), status=8)
    assert "Permission denied" in refused.err
    assert "-u root" in refused.err
    site.run("cp", "-u", "root", f"{machine}:/etc/shadow", str(tmp_path))
    assert "root:" in (tmp_path / "shadow").read_text()
    (tmp_path / "motd").write_text("hello\n")
    site.run("cp", str(tmp_path / "motd"), f"{machine}:/etc", status=8)
    site.run("cp", "-u", "root", str(tmp_path / "motd"), f"{machine}:/etc")
    done = execute(site, machine, "--", "stat", "-c", "%U", "/etc/motd")
    assert done.stdout == b"root\n"


def test_an_impostor_is_refused(site: Site, machine: str) -> None:
    known = site.home / "machines" / machine / "known_hosts"
    mine = (known.parent / "id_ed25519.pub").read_text().split()[:2]
    before = known.read_text()
    known.write_text(f"vmctl-{machine} {' '.join(mine)}\n")
    try:
        env = {"XDG_RUNTIME_DIR": str(site.home)}  # no connection is open there
        assert "another ssh host key" in site.run("ssh", machine, status=7, **env).err
        assert execute(site, machine, "--", "true", **env).returncode == 125
    finally:
        known.write_text(before)


def test_the_agent(site: Site, machine: str) -> None:
    done = execute(site, "--agent", machine, "--", "sh", "-c", "id -un; echo e >&2; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, b"root\n", b"e\n")
