"""From `resources` to limits, on hosts that can and hosts that cannot."""

import dataclasses

import pytest

from tests import replay
from vmctl import errors
from vmctl.host.facts import Cgroups
from vmctl.machine.limits import NO_LIMITS, Limits
from vmctl.spec.problems import SpecError

ALL = ("cpu", "cpuset", "memory", "blkio")


def host(version=2, without=(), **facts):
    versions = {name: version for name in ALL if name not in without}
    facts = {
        "cgroups": Cgroups(versions=versions, processors="0-3"),
        "memory_locking": True,
        **facts,
    }
    return dataclasses.replace(replay.host("kvm-intel-fine"), **facts)


@pytest.fixture
def limits(tmp_path):
    def resolve(resources, facts=None, *, session=False, more="", image="distribution"):
        path = tmp_path / "vmctl.yaml"
        path.write_text(f"name: web\nimage: {image}\nresources: {{{resources}}}\n{more}")
        around = replay.surroundings(facts or host(), session=session)
        return replay.machines(path, around)[0].limits

    return resolve


def test_nothing_written_is_nothing_limited(limits):
    assert limits("") == NO_LIMITS


def test_everything(limits):
    found = limits(
        "cpu_weight: 200, cpu_quota: 150%, cpuset: '1,0,3', memory_limit: 3GiB, io_weight: 500, "
        "disk_read_iops: 1, disk_write_iops: 2, disk_read_rate: 1MiB, disk_write_rate: 2MiB, "
        "net_rate: 10MiB",
        more="networks: [{kind: nat}]",
    )
    assert found == Limits(
        cpu_shares=200,
        cpu_quota=150,
        cpuset="0-1,3",
        memory=3 << 30,
        io_weight=500,
        disk_read_iops=1,
        disk_write_iops=2,
        disk_read_rate=1 << 20,
        disk_write_rate=2 << 20,
        net_rate=10 << 20,
    )


@pytest.mark.parametrize(("version", "shares"), [(1, 2048), (2, 200)])
def test_a_weight_is_scaled_for_the_hosts_control_groups(limits, version, shares):
    assert limits("cpu_weight: 200", host(version)).cpu_shares == shares


# fmt: off
TAKES = [
    ("cpu_weight: 200", "cpu"), ("cpu_quota: 50%", "cpu"), ("memory_limit: 4GiB", "memory"),
    ("io_weight: 200", "blkio"),
]
# fmt: on


@pytest.mark.parametrize(("text", "controller"), TAKES)
def test_a_missing_controller_is_a_refusal(limits, text, controller):
    with pytest.raises(errors.HostError, match=f"no control group '{controller}'") as caught:
        limits(text, host(without=(controller,)))
    assert caught.value.exit_code == 5
    assert "leave out" in caught.value.hint


@pytest.mark.parametrize("text", [text for text, _ in TAKES])
def test_an_ordinary_users_session_has_no_control_groups(limits, text):
    with pytest.raises(errors.HostError, match="qemu:///session"):
        limits(text, session=True)


def test_what_needs_no_control_group_holds_in_a_session(limits):
    bare = host(without=ALL)
    assert limits("cpuset: 2, disk_read_iops: 5", bare, session=True).cpuset == "2"


def test_a_bridge_in_a_session_cannot_be_held_to_a_rate(limits):
    networks = "networks: [{kind: bridge, bridge: br0}]"
    with pytest.raises(errors.HostError, match="net_rate"):
        limits("net_rate: 1MiB", session=True, more=networks)


def test_memory_that_nobody_may_lock(limits):
    with pytest.raises(errors.HostError, match="CAP_SYS_RESOURCE"):
        limits("memory_limit: 4GiB", host(memory_locking=False))


def test_processors_that_are_not_there(limits):
    with pytest.raises(errors.HostError, match="does not have processors 4-5") as caught:
        limits("cpuset: 3-5")
    assert "It has 0-3" in caught.value.hint
    with pytest.raises(errors.HostError, match="does not have processor 8"):
        limits("cpuset: '0,8'")


def test_processors_where_nothing_says_which_there_are(limits):
    count = host().cpu.count
    unknown = host(cgroups=Cgroups())
    assert limits("cpuset: 0", unknown).cpuset == "0"
    with pytest.raises(errors.HostError):
        limits(f"cpuset: {count}", unknown)


def test_limits_of_disks_where_there_is_none(limits):
    with pytest.raises(SpecError) as caught:
        limits("disk_write_rate: 1MiB", image="tiny")
    (problem,) = caught.value.problems
    assert problem.message == "disk_write_rate is set, and the machine has no disk of its own"
