"""The port of the host that leads to a guest's ssh server, and waiting for that server."""

from __future__ import annotations

import json
import socket
import subprocess
from typing import Any

from tests.vm.conftest import PATIENCE, Site


def record(site: Site, name: str) -> Any:
    return json.loads((site.home / "machines" / name / "machine.json").read_text())


def hostname(site: Site, name: str) -> str:
    """Log in as a person would who includes the file that vmctl writes."""
    done = subprocess.run(
        ["ssh", "-F", site.home / "machines" / name / "ssh.config", name, "hostname"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout.strip()


def test_a_port_of_its_own_that_stays_until_somebody_takes_it(site: Site) -> None:
    path, name = site.spec("mode: full\nhostname: inner\nready: {when: ssh}\n")
    said = site.run("up", path)
    assert f"vmctl ssh {name}" in said.out
    port = record(site, name)["ssh_port"]
    assert f"127.0.0.1:{port} -> 22/tcp" in site.status(name)["forwards"]
    assert hostname(site, name) == "inner"
    # It is neither drift nor something to be done.
    assert site.status(name)["drift"] == []
    site.run("up", path)
    assert record(site, name)["ssh_port"] == port
    site.run("stop", "--force", name)
    with socket.create_server(("127.0.0.1", port)):
        site.run("start", name)
        assert record(site, name)["ssh_port"] != port
        assert hostname(site, name) == "inner"
    site.run("down", "-y", name)
    assert not (site.home / "machines" / name).exists()


def test_the_specs_own_port_is_enough(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    path, name = site.spec(f"mode: full\nforwards: [{{host: {port}, guest: 22}}]\n")
    site.run("up", path)
    assert site.status(name)["forwards"] == [f"127.0.0.1:{port} -> 22/tcp"]
    assert record(site, name)["ssh_port"] == 0
    site.run("down", "-y", name)


def test_the_guest_agents_answer(site: Site) -> None:
    path, name = site.spec("accel: tcg\ndevices: virtio\nready: {when: agent}\n")
    site.run("up", path)
    assert site.status(name)["ready"]
    site.run("down", "-y", name)


def test_a_wait_for_ssh_that_is_too_short_says_what_it_awaited(site: Site) -> None:
    path, name = site.spec("mode: full\nready: {when: ssh, timeout: 50ms}\n")
    late = site.run("up", path, status=6)
    assert "awaited a login over ssh (no ssh server answers at 127.0.0.1 port" in late.err
    site.run("down", "-y", name)
