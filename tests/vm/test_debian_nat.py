"""A Debian guest on vmctl's own network: its lease, ssh at that address, cloud-init, a restart."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Iterator

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site

pytestmark = [pytest.mark.vm, pytest.mark.long]

START = "cat /proc/sys/kernel/random/boot_id >> /var/tmp/starts"


@pytest.fixture(scope="module")
def machine(site: Site, debian: str) -> Iterator[str]:
    name = site.name("nat")
    path = site.specs / f"{name}.yaml"
    spec = {
        "name": name,
        "project": name,
        "image": debian,
        "boot": "kernel",
        "accel": "tcg",
        "devices": "virtio",
        "memory": "512MiB",
        "user": "dev",
        "networks": [{"kind": "nat"}],
        "cloud_init": {"write_files": [{"path": "/etc/written", "content": "by cloud-init\n"}]},
        "provision": [{"script": START, "reboot": True}, {"script": START}],
    }
    path.write_text(json.dumps(spec))
    said = " ".join(site.run("up", str(path)).err.split())
    assert said.index("provision 1/2") < said.index("reboot") < said.index("provision 2/2")
    yield name
    site.run("down", "-y", name)


def leased(connection: libvirt.virConnect, mac: str) -> str:
    (address,) = (
        lease["ipaddr"]
        for network in connection.listAllNetworks()
        for lease in network.DHCPLeases(mac)
    )
    return str(address)


def test_ssh_leads_to_the_lease(site: Site, machine: str, guest_uri: libvirt.virConnect) -> None:
    status = site.status(machine)
    assert (status["ready"], status["provisioned"], status["drift"]) == (True, "yes", [])
    address = leased(guest_uri, status["machine"]["nics"][0]["mac"])
    config = (site.home / "machines" / machine / "ssh.config").read_text()
    assert f"HostName {address}\n" in config
    done = subprocess.run(
        [
            *("ssh", "-F", site.home / "machines" / machine / "ssh.config"),
            *("-o", "StrictHostKeyChecking=yes", machine, "ip -4 -o addr; cat /etc/written"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert f" {address}/" in done.stdout
    assert "by cloud-init" in done.stdout
    assert not ipaddress.ip_address(address).is_loopback


def test_it_was_restarted_between_the_steps(site: Site, machine: str) -> None:
    starts = site.run("exec", machine, "--", "cat", "/var/tmp/starts").out.split()
    assert len(starts) == len(set(starts)) == 2
    # What cloud-init does once it did once.
    said = site.run("exec", machine, "--", "cloud-init", "status").out
    assert "done" in said
