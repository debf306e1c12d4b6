"""Commands in a guest through QEMU's guest agent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.vm.conftest import PATIENCE, Site
from tests.vm.executing import MODES, WORDS, execute, sh, wait_for_none

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def virtio(site: Site) -> Iterator[str]:
    name = site.up(MODES["tcg-virtio"])
    yield name
    site.run("down", "-y", name)


def test_the_agent(site: Site, virtio: str) -> None:
    done = execute(
        *(site, virtio, "sh", "-c", 'cat; pwd; printf "%s" "$A" >&2; exit 9'),
        options=("--agent", "-w", "/etc", "-e", "A=x 'y'\nz"),
        stdin=b"in\n",
    )
    assert (done.returncode, done.stdout, done.stderr) == (9, b"in\n/etc\n", b"x 'y'\nz")
    words = execute(site, virtio, "printf", "%s\\0", *WORDS, options=("--agent",))
    assert words.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in WORDS]
    killed = execute(site, virtio, "sh", "-c", "kill -9 $$", options=("--agent",))
    assert killed.returncode == 137
    assert execute(site, virtio, "no-such-program", options=("--agent",)).returncode == 127
    assert sh(site, virtio, "ls -A /tmp") == ""


def test_more_than_libvirt_carries_in_one_message(site: Site, virtio: str) -> None:
    data = os.urandom(1 << 19)
    script = "cat > /root/data; for i in 1 2 3 4 5 6 7; do cat /root/data; done; rm /root/data"
    done = execute(site, virtio, "sh", "-c", script, options=("--agent",), stdin=data)
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, b"", 7 << 19)
    assert done.stdout == data * 7
    assert execute(site, virtio, "true", options=("--agent",)).returncode == 0


def test_a_timeout_of_the_agents(site: Site, virtio: str) -> None:
    script = "echo begun; sleep 6661 & sleep 6662"
    done = execute(site, virtio, "sh", "-c", script, options=("--agent", "--timeout", "3s"))
    assert (done.returncode, done.stdout) == (124, b"begun\n")
    wait_for_none(site, virtio, "sleep 666")


def test_an_agent_that_has_gone(site: Site, virtio: str) -> None:
    sh(site, virtio, "kill $(pidof qemu-ga); while pidof qemu-ga > /dev/null; do sleep 0.1; done")
    try:
        end = time.monotonic() + PATIENCE
        while True:
            done = execute(site, virtio, "true", options=("--agent", "--timeout", "60s"))
            if b"not connected" in done.stderr or time.monotonic() > end:
                break
        assert done.returncode == 125
        assert b"vmctl wait" in done.stderr
    finally:
        agent = "qemu-ga -m virtio-serial -p /dev/vport*p1 -f /run/qemu-ga.pid -t /run"
        sh(site, virtio, f"(setsid {agent} < /dev/null > /dev/null 2>&1 &)")
    while execute(site, virtio, "true", options=("--agent",)).returncode != 0:
        assert time.monotonic() < end, "the agent does not come back"
