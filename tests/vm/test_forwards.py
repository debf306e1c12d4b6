"""User networking: forwarded ports with real traffic.

The tiny guest answers on port 22 with dropbear's greeting, which is how it is known to be reached.
"""

from __future__ import annotations

import dataclasses
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site
from tests.vm.reaching import (
    AT_ONCE,
    GREETING,
    SLIRP_HOST,
    VIRTIO,
    down,
    free_port,
    greeter,
    greeting,
    heard,
    listening,
    refused,
    taken_port,
)

pytestmark = pytest.mark.vm


@dataclasses.dataclass
class Forwarded:
    """A machine whose second card is on user networking, with forwarded ports."""

    name: str
    path: pathlib.Path
    tcp: int
    udp: int

    def write(self, *more: str) -> None:
        forwards = [
            f"{{host: {self.tcp}, guest: 22}}",
            f"{{host: {self.udp}, guest: 5000, protocol: udp}}",
            *more,
        ]
        self.path.write_text(
            f"name: {self.name}\nproject: {self.name}\nimage: tiny\nmemory: 128MiB\n{VIRTIO}"
            "networks: [{kind: isolated}, {kind: user}]\n"
            f"forwards: [{', '.join(forwards)}]\n"
        )


@pytest.fixture(scope="module")
def forwarded(site: Site) -> Iterator[Forwarded]:
    name = site.name("fwd")
    machine = Forwarded(
        name, site.specs / f"{name}.yaml", free_port(), free_port(socket.SOCK_DGRAM)
    )
    machine.write()
    site.run("up", str(machine.path))
    yield machine
    down(site, name)


def test_forwarded_port_leads_to_the_guest(site: Site, forwarded: Forwarded) -> None:
    assert greeting("127.0.0.1", forwarded.tcp) == GREETING
    assert f"127.0.0.1:{forwarded.tcp} -> 22/tcp" in site.status(forwarded.name)["forwards"]


def test_forwarded_ports_are_open_on_loopback_alone(forwarded: Forwarded) -> None:
    assert listening(forwarded.tcp) == ["127.0.0.1"]
    assert listening(forwarded.udp, "udp") == ["127.0.0.1"]


def test_udp_reaches_the_guest(site: Site, forwarded: Forwarded) -> None:
    """Nothing listens there, so that the guest's kernel counts what arrived (NoPorts)."""

    def count() -> int:
        return int(site.console(forwarded.name, "grep ^Udp: /proc/net/snmp | tail -1").split()[2])

    before = count()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(3):
            client.sendto(b"hello", ("127.0.0.1", forwarded.udp))
    end = time.monotonic() + PATIENCE
    while (after := count()) == before and time.monotonic() < end:
        pass
    assert before < after <= before + 3


def test_guest_reaches_a_server_of_the_host(site: Site, forwarded: Forwarded) -> None:
    with greeter("127.0.0.1", "from the host") as port:
        assert heard(site, forwarded.name, SLIRP_HOST, port) == "from the host"


def test_up_changes_forwards_of_a_running_guest(
    site: Site, forwarded: Forwarded, guest_uri: libvirt.virConnect
) -> None:
    run = guest_uri.lookupByName(forwarded.name).ID()
    more = free_port()
    forwarded.write(f"{{host: {more}, guest: 22}}")
    site.run("up", str(forwarded.path))
    assert greeting("127.0.0.1", more) == GREETING
    assert greeting("127.0.0.1", forwarded.tcp) == GREETING
    forwarded.write()
    site.run("up", str(forwarded.path))
    assert refused(more)
    assert greeting("127.0.0.1", forwarded.tcp) == GREETING
    assert guest_uri.lookupByName(forwarded.name).ID() == run
    assert site.status(forwarded.name)["drift"] == []


def test_adding_a_taken_port_to_a_running_guest_is_refused(
    site: Site, forwarded: Forwarded
) -> None:
    with taken_port() as port:
        forwarded.write(f"{{host: {port}, guest: 22}}")
        result = site.run("up", str(forwarded.path), status=4)
        assert str(port) in result.err
        assert greeting("127.0.0.1", forwarded.tcp) == GREETING
    site.run("up", str(forwarded.path))
    assert greeting("127.0.0.1", port) == GREETING
    forwarded.write()
    site.run("up", str(forwarded.path))
    assert refused(port)


def test_restart_forwards_again(site: Site, forwarded: Forwarded) -> None:
    site.run("restart", "--force", forwarded.name)
    assert greeting("127.0.0.1", forwarded.tcp) == GREETING
    assert listening(forwarded.udp, "udp") == ["127.0.0.1"]


def test_up_forwards_again_what_others_started(
    site: Site, forwarded: Forwarded, guest_uri: libvirt.virConnect
) -> None:
    domain = guest_uri.lookupByName(forwarded.name)
    domain.destroy()
    domain.create()
    assert site.status(forwarded.name)["forwards"] == []
    site.run("up", str(forwarded.path))
    assert greeting("127.0.0.1", forwarded.tcp) == GREETING
    assert len(site.status(forwarded.name)["forwards"]) == 2


@pytest.mark.parametrize(
    ("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)]
)
def test_taken_port_is_refused_before_anything_exists(
    site: Site, guest_uri: libvirt.virConnect, protocol: str, kind: socket.SocketKind
) -> None:
    with taken_port(kind) as port:
        path, name = site.spec(
            f"{AT_ONCE}forwards: [{{host: {port}, guest: 22, protocol: {protocol}}}]\n"
        )
        result = site.run("up", path, status=4)
        assert f"port {port} of 127.0.0.1 ({protocol})" in " ".join(result.err.split())
        assert f"sport = :{port}" in result.err
        assert not (site.home / "machines" / name).exists()
        assert name not in [domain.name() for domain in guest_uri.listAllDomains()]
    site.run("up", path)
    site.run("stop", "--force", name)
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", port))
        if protocol == "tcp":
            holder.listen()
        assert str(port) in site.run("start", name, status=4).err
        assert site.status(name)["state"] == "stopped"
    down(site, name)


DEADLY = """
import os, pathlib, signal, sys, libvirt_qemu
from vmctl import cli

ask = libvirt_qemu.qemuMonitorCommand

def after_its_death(domain, *arguments):
    if domain.isActive():
        pid = int(pathlib.Path(f"/run/libvirt/qemu/{domain.name()}.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        while domain.isActive():
            pass
    return ask(domain, *arguments)

libvirt_qemu.qemuMonitorCommand = after_its_death
sys.exit(cli.run(sys.argv[1:]))
"""


def test_a_guest_that_dies_before_its_ports_are_forwarded(site: Site) -> None:
    path, name = site.spec(f"{VIRTIO}forwards: [{{host: {free_port()}, guest: 22}}]\n")
    done = subprocess.run(
        [sys.executable, "-c", DEADLY, "up", path],
        env={**site.env, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 8, done.stderr
    assert "ended before it was ready" in " ".join(done.stderr.split())
    site.run("up", path)
    down(site, name)
