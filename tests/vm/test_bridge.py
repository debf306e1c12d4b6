"""A machine on a bridge of the host's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.vm.conftest import Site

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a bridge"),
]

HOST, GUEST = "192.168.233.1", "192.168.233.2"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=30)


@pytest.fixture
def bridge() -> Iterator[str]:
    name = f"tb{os.getpid() % 100000}"
    ip("link", "add", name, "type", "bridge")
    ip("addr", "add", f"{HOST}/24", "dev", name)
    ip("link", "set", name, "up")
    yield name
    ip("link", "delete", name)


def test_traffic_both_ways(site: Site, bridge: str) -> None:
    path, name = site.spec(f"mode: full\nnetworks: [{{kind: bridge, bridge: {bridge}}}]\n")
    site.run("up", path)
    site.console(name, f"ifconfig eth0 {GUEST} netmask 255.255.255.0 up")
    ping = ["ping", "-c", "3", "-W", "10", GUEST]
    answer = subprocess.run(ping, capture_output=True, text=True, timeout=60, check=False)
    assert " 0% packet loss" in answer.stdout
    assert "3 packets received" in site.console(name, f"ping -c 3 {HOST}")
    site.run("down", "-y", path)
    # The bridge is the host's: it stays.
    assert os.path.isdir(f"/sys/class/net/{bridge}")


def test_a_bridge_that_is_not_there(site: Site) -> None:
    path, name = site.spec("mode: full\nnetworks: [{kind: bridge, bridge: t-nowhere}]\n")
    refused = site.run("up", path, status=5)
    assert "t-nowhere" in refused.err
    assert not (site.home / "machines" / name).exists()
