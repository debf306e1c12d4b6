"""SIGKILL at every point of `up` and `down`: the same command, or `down`, puts it right."""

from __future__ import annotations

import itertools
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site

pytestmark = pytest.mark.vm

KILLER = pathlib.Path(__file__).with_name("killer.py")
SPEC = (
    "accel: tcg\ndevices: virtio\nready: {when: running}\nautostart: false\n"
    "disks: [{name: scratch, size: 16MiB}, {name: data, size: 16MiB, keep: true}]\n"
    "networks: [{kind: nat}]\n"
)
MOST = 200
"""More changes than a command makes; the test ends when a run was not killed any more."""


def killed(site: Site, when: int, moment: str, *words: str) -> bool:
    """Run vmctl with a death at a point; returns False when it lived to its end."""
    done = subprocess.run(
        [sys.executable, str(KILLER), str(when), moment, *words],
        env={**site.env, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode != 0


def rubbish(site: Site) -> list[str]:
    """Return half-written files anywhere in the store."""
    return [str(path) for path in (site.home / "machines").rglob(".tmp-*")]


def require_gone(site: Site, connection: libvirt.virConnect, name: str) -> None:
    assert name not in [domain.name() for domain in connection.listAllDomains()]
    place = site.home / "machines" / name
    left = [path.name for path in place.iterdir()] if place.exists() else []
    assert left in ([], ["data.qcow2"])
    assert not rubbish(site)


def points(every: bool) -> Iterator[tuple[int, str]]:
    """Yield where to die: all points, or some; right after one is about before the next."""
    moments = itertools.cycle(("before", "after"))
    return zip(range(1, MOST, 1 if every else 5), moments, strict=False)


@pytest.mark.parametrize(
    "every", [pytest.param(False, id="some"), pytest.param(True, id="all", marks=pytest.mark.long)]
)
@pytest.mark.timeout(3000)
def test_up(site: Site, guest_uri: libvirt.virConnect, every: bool) -> None:
    path, name = site.spec(SPEC)
    deaths = 0
    for when, moment in points(every):
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
    assert deaths > (20 if every else 4)
    site.run("down", "-y", "--delete-kept", path)


@pytest.mark.parametrize(
    "every", [pytest.param(False, id="some"), pytest.param(True, id="all", marks=pytest.mark.long)]
)
@pytest.mark.timeout(3000)
def test_down(site: Site, guest_uri: libvirt.virConnect, every: bool) -> None:
    path, name = site.spec(SPEC.replace(", keep: true", ""))
    deaths = 0
    for when, moment in points(every):
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
    assert deaths > (8 if every else 1)
    site.run("down", "-y", path)
    require_gone(site, guest_uri, name)
