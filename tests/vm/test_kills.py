"""SIGKILL at every point of `up` and `down`: the same command, or `down`, puts it right."""

from __future__ import annotations

import libvirt
import pytest

from tests.vm.conftest import Site
from tests.vm.killing import killed, points, rubbish

pytestmark = pytest.mark.vm

SPEC = (
    "accel: tcg\ndevices: virtio\nready: {when: running}\nautostart: false\n"
    "disks: [{name: scratch, size: 16MiB}, {name: data, size: 16MiB, keep: true}]\n"
    "networks: [{kind: nat}]\n"
)


def require_gone(site: Site, connection: libvirt.virConnect, name: str) -> None:
    assert name not in [domain.name() for domain in connection.listAllDomains()]
    place = site.home / "machines" / name
    left = [path.name for path in place.iterdir()] if place.exists() else []
    assert left in ([], ["data.qcow2"])
    assert not rubbish(site)


@pytest.mark.timeout(3000)
def test_up(site: Site, guest_uri: libvirt.virConnect, thorough: bool) -> None:
    path, name = site.spec(SPEC)
    deaths = 0
    for when, moment in points(thorough):
        if not killed(site, when, moment, "up", path):
            break
        deaths += 1
        # Odd deaths are put right by the same command, even ones by its opposite.
        if deaths % 2:
            site.run("up", path)
            status = site.status(name)
            assert (status["state"], status["drift"]) == ("running", []), (when, moment)
            assert status["interrupted"] == ""
            assert not rubbish(site)
        site.run("down", "-y", path)
        require_gone(site, guest_uri, name)
    assert deaths > (20 if thorough else 4)
    site.run("down", "-y", "--delete-kept", path)


@pytest.mark.timeout(3000)
def test_down(site: Site, guest_uri: libvirt.virConnect, thorough: bool) -> None:
    path, name = site.spec(SPEC.replace(", keep: true", ""))
    deaths = 0
    for when, moment in points(thorough):
        site.run("up", path)
        if not killed(site, when, moment, "down", "-y", path):
            break
        deaths += 1
        if deaths % 2:
            site.run("down", "-y", path)
            require_gone(site, guest_uri, name)
        else:
            site.run("up", path)
            assert site.status(name)["state"] == "running", (when, moment)
    assert deaths > (8 if thorough else 1)
    site.run("down", "-y", path)
    require_gone(site, guest_uri, name)
