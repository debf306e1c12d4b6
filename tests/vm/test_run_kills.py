"""Whoever dies during a run (vmctl, QEMU, libvirt's daemon): nothing runs on, others are left."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import time

import libvirt
import pytest

from tests.vm import killing
from tests.vm.conftest import PATIENCE, Site
from tests.vm.test_daemon import Place
from tests.vm.test_run import TINY, gone, identity, qemu_of, run, runs_of, script

pytestmark = pytest.mark.vm

WAIT = 'echo begun "$(hostname)"; exec sleep 600'


class Job:
    """A run whose command has begun and goes on until it is told to end."""

    def __init__(self, site: Site, text: str = WAIT) -> None:
        self.process = subprocess.Popen(
            site.command("run", "-q", *script(text)),
            env=site.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.name = ""

    def begun(self) -> None:
        assert self.process.stdout is not None
        # The hostname is the spec's; which machine it is, the store knows.
        assert self.process.stdout.readline().startswith("begun")

    def ended(self, word: str = "") -> tuple[int, str]:
        _, err = self.process.communicate(word, timeout=PATIENCE)
        return self.process.returncode, err


def test_each_death_ends_one_run_and_no_other(site: Site) -> None:
    """Four at once: one is interrupted, one killed, one loses its QEMU, one goes on to its end."""
    jobs = []
    for text in (WAIT, WAIT, WAIT, 'echo begun; read word; echo "$word" >&2; exit 4'):
        before = set(runs_of(site))
        job = Job(site, text)
        jobs.append(job)
        end = time.monotonic() + PATIENCE
        while not job.name:
            assert time.monotonic() < end
            job.name = next(iter(set(runs_of(site)) - before), "")
            time.sleep(0.02)
    for job in jobs:
        job.begun()
    interrupted, killed, powerless, spared = jobs
    interrupted.process.send_signal(signal.SIGTERM)
    killed.process.kill()
    os.kill(qemu_of(site, powerless.name), signal.SIGKILL)
    assert interrupted.ended() == (130, "Interrupted.\n")
    status, said = powerless.ended()
    assert status == 125
    assert "ended, or its QEMU was killed" in said
    assert killed.ended()[0] == -signal.SIGKILL
    assert set(runs_of(site)) == {killed.name, spared.name}
    # Libvirt ends it by itself: nobody of vmctl's is there to do it.
    wait_for_end(site, killed.name)
    found = site.run("gc", "-n", "--json").json
    assert [one["name"] for one in found if one["kind"] == "machine of a dead run"] == [killed.name]
    assert run(site, *script("exit 6")).returncode == 6
    assert runs_of(site) == [spared.name]
    assert spared.ended("still here\n") == (4, "still here\n")
    gone(site)
    assert runs_of(site) == []


def wait_for_end(site: Site, name: str) -> None:
    connection = libvirt.open(site.uri)
    try:
        end = time.monotonic() + PATIENCE
        while name in {domain.name() for domain in connection.listAllDomains()}:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        connection.close()


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a place without daemons")
def test_the_daemon_dies(shared_home: pathlib.Path, site: Site, tmp_path: pathlib.Path) -> None:
    """The job goes on over ssh; its machine is ended through a daemon that is started anew."""
    home = shared_home / "daemon"
    home.mkdir(mode=0o711)
    for name in ("images", "image-names"):
        shutil.copytree(shared_home / name, home / name, symlinks=True)
    place = Place(home)
    try:
        sign = home / "go-on"
        text = "echo begun; read word; exit 9"
        process = subprocess.Popen(
            place.command(*site.command("run", "-q", *script(text))),
            env=place.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n", sign
            for number in place.processes("libvirtd"):
                place.kill(number)
            _, err = process.communicate("word\n", timeout=PATIENCE)
        assert process.returncode == 9, err
        place.wait(lambda: not place.processes("qemu-system-x86"))
        assert list((home / "machines").iterdir()) == []
    finally:
        place.close()


@pytest.mark.long
def test_a_kill_at_any_point_leaves_what_the_next_run_clears(site: Site) -> None:
    words = ("run", "-q", *TINY, "--", "true")
    for when, moment in killing.points(every=False, some=6):
        lived = not killing.killed(site, when, moment, *words)
        if lived:
            break
        if (site.home / "store.json").exists():  # else it was killed before all else
            wait_for_end(site, f"run-{identity(site)}-1")
    else:
        pytest.fail("it was killed every time")
    assert when > 8
    assert run(site, *TINY, "--", "true").returncode == 0
    gone(site)
    assert runs_of(site) == []
    assert killing.rubbish(site) == []
