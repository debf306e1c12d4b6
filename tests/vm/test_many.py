"""Forty machines in one spec: in order, killed at several points, and gone without a trace."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site
from tests.vm.reaching import free_port, require_absent

pytestmark = [pytest.mark.long, pytest.mark.vm, pytest.mark.timeout(900)]

COUNTING = pathlib.Path(__file__).with_name("counting.py")
MIDDLE, LAST = 19, 20
AT_ONCE = 4
"""Calls to libvirt under way at once, at most (design §5)."""


class Forty:
    """`base` first, then the machines of `middle`, then those of `last`; they are 40."""

    def __init__(self, site: Site, connection: libvirt.virConnect) -> None:
        self.site = site
        self.connection = connection
        self.project = site.name("many")
        self.base, middle, last = (f"{self.project}-{part}" for part in "abc")
        self.middle = [f"{middle}-{number}" for number in range(1, MIDDLE + 1)]
        self.last = [f"{last}-{number}" for number in range(1, LAST + 1)]
        self.names = [self.base, *self.middle, *self.last]
        site.claim(*self.names)
        self.port = free_port()
        self.path = str(site.specs / f"{self.project}.yaml")
        pathlib.Path(self.path).write_text(
            f"project: {self.project}\n"
            "defaults: {image: tiny, memory: 128MiB, accel: tcg, devices: virtio, display: none}\n"
            "vms:\n"
            f"  {self.base}:\n    networks: [{{kind: user}}, {{kind: isolated}}]\n"
            f"    forwards: [{{host: {self.port}, guest: 22}}]\n"
            "    disks: [{name: data, size: 16MiB}]\n"
            f"  {middle}:\n    count: {MIDDLE}\n    needs: [{self.base}]\n"
            "    ready: {when: running}\n    networks: [{kind: isolated}]\n"
            f"  {last}:\n    count: {LAST}\n    needs: [{middle}]\n"
            "    ready: {when: running}\n    disks: [{name: data, size: 16MiB}]\n"
        )

    def running(self) -> list[str]:
        """Return the machines that libvirt runs."""
        running = self.connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING)
        return [domain.name() for domain in running if domain.name() in self.names]

    def listed(self) -> dict[str, str]:
        """Return the states of the project's machines as `ps` shows them."""
        rows = self.site.run("ps", "--json", self.path).json
        return {row["name"]: row["state"] for row in rows}

    def ids(self) -> dict[str, int]:
        """Return libvirt's number of each machine's run."""
        return {name: self.connection.lookupByName(name).ID() for name in self.running()}

    def pid(self, name: str) -> int:
        """Return QEMU's process; its parent is not ours, so it may be gone at once."""
        return int(pathlib.Path(f"/run/libvirt/qemu/{name}.pid").read_text())

    def pull_down(self, name: str) -> None:
        """Kill a machine's QEMU as the kernel would, short of memory."""
        os.kill(self.pid(name), signal.SIGKILL)
        wait_for(lambda: name not in self.running())

    def processes(self) -> list[str]:
        """Return the command lines of QEMUs of the project that there are."""
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().split(b"\0")
            except OSError:
                continue
            if f"guest={self.project}-".encode() in b" ".join(words):
                found.append(b" ".join(words).decode())
        return found


def wait_for(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def forty(site: Site, libvirt_daemon: str) -> Iterator[Forty]:
    connection = libvirt.open(libvirt_daemon)
    require_absent(connection, "vmctl-isolated")
    yield Forty(site, connection)
    connection.close()


def counted(forty: Forty, *words: str) -> str:
    """Run vmctl; assert that it never had more calls to libvirt under way than it may."""
    report = forty.site.specs / f"{forty.project}.calls"
    done = subprocess.run(
        [sys.executable, str(COUNTING), str(report), *words],
        env={**forty.site.env, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    most, *calls = report.read_text().split()
    assert 2 <= int(most) <= AT_ONCE, calls
    return done.stderr


def ended(err: str, step: str) -> list[str]:
    """Return the machines that ended a step, in the order in which they did."""
    lines = [line.split() for line in err.splitlines()]
    return [words[1] for words in lines if len(words) > 2 and words[2] == step]


def test_nothing_begins_when_what_all_need_dies(forty: Forty) -> None:
    """The guest of the first machine is killed while it is waited for."""
    process = forty.site.start("up", forty.path)
    wait_for(lambda: forty.running() == [forty.base])
    forty.pull_down(forty.base)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 8, err
    assert f"it needs '{forty.base}', which failed" in " ".join(err.split())
    assert set(forty.listed()) == {forty.base}


def test_vmctl_and_a_guest_are_killed_midway(forty: Forty) -> None:
    process = forty.site.start("up", forty.path)
    wait_for(lambda: len(forty.running()) > MIDDLE // 2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    # Nothing was begun that needs machines which were not there yet.
    assert not set(forty.listed()) & set(forty.last)
    there = forty.ids()
    assert forty.base in there
    victim = next(name for name in there if name != forty.base)
    forty.pull_down(victim)
    err = counted(forty, "up", forty.path)
    now = forty.ids()
    assert set(now) == set(forty.names)
    # Those that ran run on; those that did not were started, in the order of their needs.
    assert {name for name in there if now[name] == there[name]} == set(there) - {victim}
    order = ended(err, "ready")
    assert sorted(order) == sorted(forty.names)
    first = min(order.index(name) for name in forty.last)
    assert first == 1 + MIDDLE
    assert order[0] == forty.base


def test_all_of_them_run(forty: Forty) -> None:
    assert forty.listed() == dict.fromkeys(forty.names, "running")
    before = forty.ids()
    err = forty.site.run("up", forty.path).err
    assert set(ended(err, "ready")) == set(forty.names)
    assert not ended(err, "start")
    assert forty.ids() == before
    (first, *_) = forty.site.run("diff", "--json", "--exit-code", forty.path).json["machines"]
    assert first["changes"] == []


def test_one_that_dies_later_is_started_again(forty: Forty) -> None:
    before = forty.ids()
    victim = forty.last[LAST // 2]
    forty.pull_down(victim)
    assert forty.listed()[victim] != "running"
    forty.site.run("up", forty.path)
    now = forty.ids()
    assert {name for name in forty.names if now[name] != before[name]} == {victim}


def test_down_leaves_nothing(forty: Forty) -> None:
    """The last test: it removes them, those that need others first."""
    assert len(forty.processes()) == len(forty.names)
    order = ended(counted(forty, "down", "-y", forty.path), "remove")
    assert sorted(order) == sorted(forty.names)
    assert order[-1] == forty.base
    assert set(order[:LAST]) == set(forty.last)
    assert forty.listed() == {}
    assert forty.processes() == []
    assert not [one for one in forty.connection.listAllDomains() if one.name() in forty.names]
    home = forty.site.home
    left = [str(path) for path in home.rglob("*") if forty.project in path.name]
    own = (str(forty.site.specs), str(home / "locks"))
    assert [path for path in left if not path.startswith(own)] == []
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", forty.port))
    left = [str(one) for one in forty.site.run("gc", "--dry-run", "--json").json]
    assert not [one for one in left if forty.project in one]
    require_absent(forty.connection, "vmctl-isolated")
