"""Warm pools: every job has a guest of its own, and no death of anybody loses a machine."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site
from vmctl.deadline import Deadline
from vmctl.runner.pooling import pool_client

pytestmark = pytest.mark.vm

LOOK = (
    "ls /root; hostname; date -u +%s; cat /etc/dropbear/* | sha256sum; "
    "head -c 16 /dev/urandom | sha256sum; echo secret-of-a-job > /root/marker"
)


class Pool:
    """A pool of tiny machines, and what its supervisor says of it."""

    def __init__(self, site: Site, slots: int) -> None:
        self.site = site
        self.name = site.name("pool")
        site.claim(*(f"{self.name}-{number}" for number in range(1, slots + 2)))
        words = ("--slots", str(slots), "--set", "memory=128MiB", "--allow-tcg")
        site.run("pool", "create", self.name, "tiny", *words)

    @property
    def status(self) -> Any:
        return self.site.run("pool", "status", self.name, "--json").json

    @property
    def states(self) -> list[str]:
        return [slot["state"] for slot in self.status["slots"]]

    @property
    def directory(self) -> pathlib.Path:
        return self.site.home / "pools" / self.name

    def kept(self) -> list[Any]:
        """When the saved states were made."""
        names = [slot["machine"] for slot in self.status["slots"]]
        shown = (self.site.run("snapshot", "show", each, "warm", "--json").json for each in names)
        return [each[0]["created"] for each in shown]

    def until(self, fits: Callable[[list[str]], bool]) -> None:
        """Wait until the slots are in fitting states."""
        end = time.monotonic() + PATIENCE
        while not fits(self.states):
            assert time.monotonic() < end, self.status
            time.sleep(0.1)

    def all_ready(self) -> None:
        self.until(lambda states: set(states) == {"ready"})

    def job(self, command: str, status: int = 0) -> list[str]:
        words = ("run", "-q", "--pool", self.name, "--", "sh", "-c", command)
        return self.site.run(*words, status=status).out.split("\n")

    def begun(self, command: str) -> subprocess.Popen[str]:
        """Start a job and return once its command runs."""
        words = ("run", "-q", "--pool", self.name, "--", "sh", "-c", f"echo begun; {command}")
        child = self.site.start(*words)
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        return child


@pytest.fixture(scope="module")
def pool(site: Site) -> Iterator[Pool]:
    found = Pool(site, 2)
    yield found
    site.run("pool", "delete", "-y", "--force", found.name)
    assert not found.directory.exists()
    left = {path.name for path in (site.home / "machines").iterdir()}
    assert not {each for each in left if each.startswith(found.name)}


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = child.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    return child.returncode, out


def test_every_job_has_a_guest_of_its_own(pool: Pool) -> None:
    """Nothing of a job is left to the next one, random numbers and keys are new, the clock right.

    Three jobs in two slots: one slot is used twice at least.
    """
    seen = []
    for _ in range(3):
        before = int(time.time())
        first, *rest, now, keys, numbers, last = pool.job(LOOK)
        assert not last
        hostname = rest[-1] if rest else first
        assert "marker" not in (first, *rest)
        assert before - 2 <= int(now) <= time.time() + 2
        seen.append((hostname, keys, numbers))
    for values in zip(*seen, strict=True):
        assert len(set(values)) == 3
    assert len({name.rpartition("-")[0] for name, _, _ in seen}) < 3


def test_the_status_is_the_jobs(pool: Pool) -> None:
    assert pool.job("echo out; exit 7", status=7) == ["out", ""]
    assert pool.job("kill -9 $$", status=137) == [""]
    done = pool.site.run(
        "run", "--timeout", "1s", "--pool", pool.name, "--", "sleep", "600", status=124
    )
    assert "did not end" in done.err


def test_a_killed_client_gives_its_machine_back(pool: Pool) -> None:
    pool.all_ready()
    child = pool.begun("echo secret-of-a-job > /root/marker; sleep 600")
    assert sorted(pool.states) == ["claimed", "ready"]
    child.kill()
    ended(child)
    pool.all_ready()
    for _ in range(2):
        assert pool.job("cat /root/marker", status=1) == [""]


def test_a_killed_supervisor_loses_nothing(pool: Pool) -> None:
    """A job goes on, a ready slot stays as it is, and the next supervisor has them both."""
    pool.all_ready()
    child = pool.begun("read line; echo $line")
    claimed = next(slot for slot in pool.status["slots"] if slot["state"] == "claimed")
    other = 3 - claimed["slot"]
    kept = json.loads((pool.directory / f"slot-{other}.json").read_text())
    os.kill(pool.status["supervisor"], signal.SIGKILL)
    done = pool.site.run("run", "--pool", pool.name, "--", "true", status=125)
    assert "pool serve --background" in done.err
    # Nobody is there to wait for the job but the command itself.
    for words in (("drain",), ("delete", "-y")):
        done = pool.site.run("pool", *words, "--timeout", "100ms", pool.name, status=6)
        assert "Jobs still run" in done.err
    pool.site.run("pool", "drain", "--resume", pool.name)
    pool.site.run("pool", "serve", "--background", pool.name)
    assert "process" in pool.site.run("pool", "serve", pool.name, status=4).err
    pool.until(lambda states: sorted(states) == ["left", "ready"])
    assert json.loads((pool.directory / f"slot-{other}.json").read_text()) == kept
    assert child.stdin is not None
    child.stdin.write("survived\n")
    child.stdin.close()
    child.stdin = None
    assert ended(child) == (0, "survived\n")
    pool.all_ready()


@pytest.mark.long
def test_a_dead_guest_is_replaced(pool: Pool, guest_uri: libvirt.virConnect) -> None:
    """A QEMU that died is never handed out; another one goes on from the same saved state."""
    pool.all_ready()
    before = pool.kept()
    guest_uri.lookupByName(f"{pool.name}-1").destroy()
    guest_uri.lookupByName(f"{pool.name}-2").destroy()
    assert pool.job("echo fine") == ["fine", ""]
    pool.all_ready()
    pool.job("poweroff; sleep 600", status=125)
    pool.all_ready()
    assert pool.kept() == before


def test_a_slot_that_others_restored_is_not_fresh(pool: Pool) -> None:
    """Its guest has the identity of all others, and the connection to it nobody inside."""
    pool.all_ready()
    for number in (1, 2):
        pool.site.run("snapshot", "restore", "-y", "--no-safety", f"{pool.name}-{number}", "warm")
    name = pool.job("hostname")[0]
    assert name.startswith(pool.name) and len(name) == len(f"{pool.name}-1-abcdef")


def test_drain_and_scale(pool: Pool) -> None:
    pool.all_ready()
    child = pool.begun("read line")
    draining = pool.site.start("pool", "drain", pool.name)
    end = time.monotonic() + PATIENCE
    while not pool.status["pool"]["drained"] and time.monotonic() < end:
        time.sleep(0.05)
    assert draining.poll() is None
    done = pool.site.run("run", "--pool", pool.name, "--", "true", status=125)
    assert "is drained" in done.err and "--resume" in done.err
    child.communicate("go\n", timeout=PATIENCE)
    assert ended(draining)[0] == 0
    pool.site.run("pool", "drain", "--resume", pool.name)
    pool.site.run("pool", "scale", pool.name, "1")
    pool.until(lambda states: states == ["ready"])
    assert not (pool.site.home / "machines" / f"{pool.name}-2").exists()
    assert pool.job("echo one") == ["one", ""]


def test_a_slot_that_is_not_the_pools_any_more(site: Site, guest_uri: libvirt.virConnect) -> None:
    """The pool goes, the machine stays, and it is said which and why."""
    pool = Pool(site, 1)
    done = site.run("pool", "create", pool.name, "tiny", "--allow-tcg", status=4)
    assert f"There is a pool '{pool.name}' already" in done.err
    done = site.run("pool", "serve", "--background", pool.name, status=4)
    assert "is supervised already" in done.err
    machine = f"{pool.name}-1"
    site.run("release", machine)
    domain = guest_uri.lookupByName(machine)
    try:
        done = site.run("run", "--pool", pool.name, "--", "true", status=125)
        assert "which is not of pool" in done.err
        done = site.run("pool", "delete", "-y", pool.name)
        assert f"Machine '{machine}' stays" in done.err
        assert not pool.directory.exists() and domain.isActive()
    finally:
        domain.destroy()
        domain.undefine()
        shutil.rmtree(site.home / "machines" / machine, ignore_errors=True)


def test_nothing_is_made_of_what_is_refused(site: Site) -> None:
    name = site.name("pool")
    done = site.run("pool", "create", name, "tiny", status=7)
    assert "no security boundary" in done.err and "--allow-tcg" in done.err
    site.run("pool", "create", name, "tiny", "--allow-tcg", "--slots", "200", status=5)
    assert not (site.home / "pools" / name).exists()
    assert site.run("pool", "status", name, status=3).err
    assert all(each["pool"]["name"] != name for each in site.run("pool", "list", "--json").json)


def test_only_the_owner_is_heard(pool: Pool) -> None:
    """The socket is private, and nonsense on it harms nobody."""
    import socket

    from vmctl.runner.pooling import protocol

    path = pool.directory / "control.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    for sent in (b"nonsense\n", b"[]\n", b'{"ask": "scale"}\n', b"[" * 9999 + b"\n"):
        with socket.socket(socket.AF_UNIX) as peer, protocol.short(path) as address:
            peer.connect(address)
            peer.settimeout(PATIENCE)
            peer.sendall(sent)
            assert peer.recv(100) == b""
    with socket.socket(socket.AF_UNIX) as peer, protocol.short(path) as address:
        peer.connect(address)
        peer.settimeout(PATIENCE)
        peer.sendall(b'{"ask": "tea"}\n')
        assert b"does not know" in peer.recv(1000)
    assert pool.status["supervisor"]


@pytest.mark.long
def test_sixteen_at_once(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody ever has the machine of another, and everybody has one in the end."""
    for key in ("VMCTL_HOME", "LIBVIRT_DEFAULT_URI"):
        monkeypatch.setenv(key, pool.site.env[key])
    pool.site.run("pool", "scale", pool.name, "2")
    pool.all_ready()
    had: dict[str, threading.Lock] = {
        f"{pool.name}-{number}": threading.Lock() for number in (1, 2)
    }
    generations: list[str] = []
    problems: list[BaseException] = []

    def ask() -> None:
        try:
            with (
                pool_client.claimed(pool.name, Deadline.after(PATIENCE * 3)) as claim,
                contextlib.ExitStack() as stack,
            ):
                assert had[claim.machine].acquire(blocking=False)
                stack.callback(had[claim.machine].release)
                generations.append(claim.generation)
        except BaseException as problem:  # noqa: BLE001
            problems.append(problem)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(set(generations)) == 16


@pytest.mark.long
def test_warm_without_a_pool(
    site: Site, guest_uri: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is made once, loaded from disk where it rested, and never the same guest.

    Its supervisor goes on, without what was in the environment of the run that needed it.
    """
    monkeypatch.setitem(site.env, "SECRET_OF_A_JOB", "x")
    words = ("run", "-q", "--warm", "--set", "memory=128MiB", "tiny", "--", "sh", "-c", LOOK)
    guests = [site.run(*words).out]
    (name,) = (path.name for path in (site.home / "pools").glob("warm-*"))
    site.claim(f"{name}-1")
    try:
        guests.append(site.run(*words).out)
        kept = site.home / "pools" / name / "pool.json"
        supervisor = site.run("pool", "status", name, "--json").json["supervisor"]
        environment = pathlib.Path(f"/proc/{supervisor}/environ").read_bytes()
        assert b"VMCTL_HOME=" in environment and b"SECRET_OF_A_JOB" not in environment
        os.kill(supervisor, signal.SIGKILL)
        kept.write_text(kept.read_text().replace('"idle": 600.0', '"idle": 0.5'))
        site.run("pool", "serve", "--background", name)
        domain = guest_uri.lookupByName(f"{name}-1")
        end = time.monotonic() + PATIENCE
        while domain.isActive() or (kept.parent / "control.sock").exists():
            assert time.monotonic() < end
            time.sleep(0.1)
        guests.append(site.run(*words).out)
        assert all("marker" not in each for each in guests)
        assert len(set(guests)) == 3
        assert domain.isActive()
    finally:
        site.run("pool", "delete", "-y", "--force", name)
