"""What is declared against what holds."""

import pytest

from vmctl import errors
from vmctl.host import cgroups, shaping
from vmctl.host.confinement import Confinement
from vmctl.host.facts import Cgroups
from vmctl.lifecycle import holding
from vmctl.lifecycle.holding import Held, Holding
from vmctl.machine.limits import Limits
from vmctl.ui import confinement as shown

CONFINED = Confinement(
    version="v2",
    groups={"unified": "/machine.slice/web"},
    limits={
        "cpu.weight": "200",
        "cpu.max": "50000 100000",
        "memory.max": "3221225472",
        "io.bfq.weight": "default 300",
    },
    namespaces={"mnt": True, "net": False, "user": None},
    processors="0-1",
)
THROTTLED = {
    "ua-disk-root": {"iops_rd": 50, "iops_wr": 0, "bps_rd": 1024, "bps_wr": 0},
    "ua-disk-data": {"iops_rd": 50, "iops_wr": 0, "bps_rd": 4096, "bps_wr": 0},
    "ua-cdrom0": {"iops_rd": 0, "iops_wr": 0, "bps_rd": 0, "bps_wr": 0},
}


def test_the_kernels_files_and_qemus_throttle():
    found = holding._enforced(CONFINED, THROTTLED)
    assert found["cpu_weight"] == (200, "cpu.weight 200")
    assert found["cpu_quota"] == (50, "cpu.max 50000 100000")
    assert found["memory_limit"] == (3 << 30, "memory.max 3221225472")
    assert found["io_weight"] == (300, "io.bfq.weight default 300")
    assert found["cpuset"][0] == "0-1"
    assert found["disk_read_iops"][0] == 50
    assert found["disk_write_iops"][0] is None
    assert found["disk_read_rate"][0] == "1024 and 4096"


def test_systemd_gives_bfq_less_than_libvirt_asked_for():
    files = {"io.bfq.weight": "default 118", "io.weight": "default 300"}
    assert holding._enforced(Confinement(limits=files), {})["io_weight"] == (
        118,
        "io.bfq.weight default 118, io.weight default 300; systemd gives bfq less",
    )


@pytest.mark.parametrize(("version", "weight"), [(1, 200), (2, 2048)])
def test_shares_are_told_as_weights(monkeypatch, version, weight):
    monkeypatch.setattr(cgroups, "look", lambda: Cgroups(versions={"cpu": version}))
    assert holding._by_key(Limits(cpu_shares=2048)) == {"cpu_weight": weight}


def held(**more):
    return Held(**{"key": "cpu_quota", "declared": 50, "where": "cpu.max", **more})


def test_what_holds():
    assert held(libvirt=50, enforced=50).holds
    assert held(libvirt=50).holds  # the kernel could not be asked
    assert Held(key="cpu_quota", declared=50).holds  # it does not run
    assert not held(libvirt=80, enforced=80).holds
    assert not held(libvirt=50, enforced=80).holds


def test_json_has_the_same_keys_whatever_is_known():
    keys = ["limits", "pid", "cgroups", "namespaces"]
    assert list(Holding().as_dict()) == keys
    full = Holding(limits=(held(libvirt=50),), pid=7, confinement=CONFINED).as_dict()
    assert list(full) == keys
    assert full["limits"]["cpu_quota"] == {
        "declared": 50,
        "libvirt": 50,
        "enforced": None,
        "where": "cpu.max",
    }
    assert full["namespaces"] == {"mnt": "own", "net": "host", "user": "unknown"}
    assert Holding().as_dict()["pid"] is None


def text(*limits):
    return list(shown.lines(Holding(limits=limits, confinement=CONFINED)))


def test_people_see_one_line_for_each():
    rate = held(key="net_rate", declared=10 << 20, libvirt=10 << 20, where="tc")
    memory = held(key="memory_limit", declared=3 << 30, libvirt=3 << 30, enforced=2 << 30)
    assert text(held(libvirt=50, enforced=50), rate, memory, held(libvirt=None, enforced=80)) == [
        ("limit", "cpu_quota 50% (cpu.max)", True),
        ("limit", "net_rate 10MiB/s (tc)", True),
        ("limit", "memory_limit 3GiB, it is 2GiB (cpu.max)", False),
        ("limit", "cpu_quota 50%, libvirt has not set, it is 80% (cpu.max)", False),
        ("cgroup", "v2: /machine.slice/web (unified)", True),
        ("namespaces", "its own: mnt; the host's: net", True),
    ]


def test_a_machine_that_is_off_shows_what_was_declared():
    off = Holding(limits=(Held(key="cpu_quota", declared=50),))
    assert list(shown.lines(off)) == [("limit", "cpu_quota 50%", True)]


class Wanted:
    """As much of a machine as is asked."""

    def __init__(self, **limits):
        self.name = "web"
        self.limits = Limits(**limits)


def test_a_weight_that_would_do_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(cgroups, "unweighed", lambda _home: ("disk 'vda' has 'none'", "vda"))
    with pytest.raises(errors.HostError, match="io_weight, which would do nothing") as caught:
        holding.require([Wanted(), Wanted(io_weight=200)], "/store")
    assert "/sys/block/vda/queue/scheduler" in caught.value.hint
    holding.require([Wanted(cpu_quota=50)], "/store")


def test_a_rate_that_the_kernel_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr(shaping, "objection", lambda: "its kernel refuses a queue: Unknown")
    with pytest.raises(errors.HostError, match="net_rate, which this host cannot hold") as caught:
        holding.require([Wanted(net_rate=1024)], "/store")
    assert "modprobe" in caught.value.hint
