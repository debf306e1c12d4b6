"""CI systems on warm machines, which a keeper has between their calls."""

from __future__ import annotations

import json
import os
import pathlib
import signal
from collections.abc import Iterator

import pytest

from tests.vm.conftest import Site
from tests.vm.test_garm import Controller
from tests.vm.test_gitlab import SYSTEM, Runner, until
from tests.vm.test_pytest_plugin import Users

pytestmark = [pytest.mark.vm, pytest.mark.long]


@pytest.fixture(scope="module")
def pool(site: Site) -> Iterator[str]:
    """A pool of one machine: a second job has to wait until the first one's was reset."""
    name = site.name("pool")
    site.claim(f"{name}-1")
    words = ("--slots", "1", "--set", "memory=128MiB", "--allow-tcg")
    site.run("pool", "create", name, "tiny", *words)
    yield name
    site.run("pool", "delete", "-y", "--force", name)


def test_a_job_of_gitlabs(site: Site, pool: str, tmp_path: pathlib.Path) -> None:
    terms = ("--pool", pool, "--image", pool)
    first = Runner(site, tmp_path)
    first.stage("prepare", *terms, status=0)
    first.run("touch /root/left-by-the-first-job")
    assert first.run("ls /root").out == "left-by-the-first-job\n"
    # The runner's retry gives the machine back, and gets a fresh one.
    first.stage("prepare", *terms, status=0)
    assert first.run("ls /root").out == ""
    first.stage("cleanup", status=0)
    first.stage("cleanup", status=0)
    first.run("true", status=SYSTEM)
    assert list((site.home / "executors").glob(f"{first.key}*")) == []


def test_whoever_lost_the_machine_is_told(site: Site, pool: str, tmp_path: pathlib.Path) -> None:
    job = Runner(site, tmp_path, image=pool)
    job.stage("prepare", "--pool", pool, status=0)
    log = site.home / "executors" / f"{job.key}.log"
    for keeper in until(lambda: holders(log)):
        os.kill(keeper, signal.SIGKILL)
    until(lambda: not holders(log))
    said = job.run("true", status=SYSTEM).err
    assert "was given back while it was needed" in said
    job.stage("cleanup", status=0)


def holders(path: pathlib.Path) -> list[int]:
    """Return the processes that have a file open."""
    found = set()
    for link in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == path:
                found.add(int(link.parts[2]))
        except OSError:
            continue
    return sorted(found)


def test_an_instance_of_garms(site: Site, pool: str, tmp_path: pathlib.Path) -> None:
    controller = Controller(site, tmp_path, "warm")
    try:
        controller.config.write_text(f'pools = ["{pool}"]\n{controller.config.read_text()}')
        controller.files["install-script/"] = b"#!/bin/sh\necho > /root/proof\n"
        asked = controller.bootstrap("garm-warm", image=pool)
        made = json.loads(controller.call("CreateInstance", stdin=asked).out)
        assert made["status"] == "running"
        key = made["provider_id"]
        until(lambda: any("install-script" in path for path, _, _ in controller.heard))
        assert json.loads(controller.call("ListInstances").out) == [made]
        said = controller.call("StopInstance", GARM_INSTANCE_ID=key, status=1).err
        assert "never stops" in said
        controller.call("DeleteInstance", GARM_INSTANCE_ID=key)
        assert json.loads(controller.call("ListInstances").out) == []
    finally:
        controller.close()


def test_the_fixture_of_pytest(site: Site, pool: str, tmp_path: pathlib.Path) -> None:
    users = Users(site, tmp_path)
    done = users.pytest("-k", "test_default", "--vm-pool", pool)
    assert done.returncode == 0, done
