"""`vmctl compare` with a Debian guest; and what gc does about comparisons that were killed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import pathlib
import shutil

import libvirt
import pytest

from tests.vm.conftest import Site
from tests.vm.test_compare import QUICK, garbage, leftovers

pytestmark = [pytest.mark.long, pytest.mark.vm]


def test_a_debian_guest_runs_the_same_job(site: Site, debian: str, tmp_path: pathlib.Path) -> None:
    """The system on a disk, and a container with that disk's files; standard tools in both."""
    spec, path = site.specs / "debian.yaml", tmp_path / "r.json"
    spec.write_text(f"name: debian\nimage: {debian}\nmemory: 512MiB\n")
    workloads = "system-call,hackbench,fio-random-1,start-user-space,start-total"
    words = ("--modes", "tcg-virtio,container", "--rounds", "1", "--workloads", workloads)
    site.run(*QUICK, str(spec), *words, "--json", str(path))
    data = json.loads(path.read_text())
    assert data["machine"]["image"] == debian
    for run in data["runs"]:
        assert (run["state"], run["why"]) == ("ok", "")
        measured = {sample["workload"] for sample in run["samples"]}
        assert {"system-call", "start-total"} <= measured
        for tool in ("hackbench", "fio"):
            if shutil.which(tool):
                assert any(name.startswith(tool) for name in measured), run["missing"]
    machine = next(run for run in data["runs"] if run["contender"] == "tcg-virtio")
    assert machine["facts"]["hypervisor"] == "TCGTCGTCGTCG"
    assert "start-user-space" not in machine["missing"]
    assert leftovers(site) == []


def test_gc_ends_a_guest_that_libvirt_forgot_to_end(site: Site, libvirt_daemon: str) -> None:
    """As where libvirt was started anew while a comparison went on."""
    token = "0fedcba9"
    place = site.home / "lab" / token
    place.mkdir(parents=True)
    place.chmod(0o777)
    connection = libvirt.open(libvirt_daemon)
    with contextlib.closing(connection):
        connection.createXML(
            f"<domain type='qemu'><name>lab-{token}-full</name><memory unit='MiB'>32</memory>"
            "<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>"
            f"<serial type='file'><source path='{place}/x.console'/></serial>"
            "</devices></domain>"
        )
    with (site.home / "locks" / "lab-compare.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert garbage(site) == []
    (left,) = garbage(site)
    assert (left["name"], left["data"]) == (f"lab-{token}", False)
    assert "1 of its guests run" in left["why"]
    site.run("gc", "-y", left["name"])
    assert leftovers(site) == []
