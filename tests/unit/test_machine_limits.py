"""Limits: scaled as the kernel has them, and the same after a way through XML."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmctl.machine import limits
from vmctl.machine.limits import Limits
from vmctl.machine.xml import limits as limits_xml
from vmctl.machine.xml import metadata as metadata_xml
from vmctl.machine.xml.element import Writer
from vmctl.spec.resources import ResourcesSpec

# fmt: off
WEIGHTS = [(1, 10), (50, 512), (100, 1024), (200, 2048), (10_000, 102_400)]
# fmt: on


@pytest.mark.parametrize(("weight", "shares"), WEIGHTS)
def test_a_weight_means_the_same_on_both_versions_of_cgroups(weight, shares):
    assert limits.shares(weight, unified=False) == shares
    assert limits.shares(weight, unified=True) == weight


@given(st.integers(1, 10_000), st.booleans())
def test_the_weight_comes_back(weight, unified):
    assert limits.weight(limits.shares(weight, unified=unified), unified=unified) == weight


def test_no_weight_is_no_shares():
    assert limits.shares(0, unified=False) == 0


@given(st.frozensets(st.integers(0, 300)))
def test_processors_come_back_from_a_list(cpus):
    assert limits.cpus_of(limits.cpuset_of(cpus)) == cpus


def test_a_list_of_processors_has_libvirts_form():
    assert limits.cpuset_of(frozenset({3, 0, 1, 8, 9, 2})) == "0-3,8-9"


def written(wanted):
    out = Writer("domain", type="qemu")
    vcpu = out.add(out.root, "vcpu", cpuset=wanted.cpuset, text="1")
    assert vcpu.tag == "vcpu"
    devices = out.add(out.root, "devices")
    limits_xml.write(wanted, out)
    limits_xml.write_disk(wanted, out.add(devices, "disk"), out)
    limits_xml.write_card(wanted, out.add(devices, "interface"), out)
    return out.root


@given(
    st.builds(
        Limits,
        cpu_shares=st.integers(2, 100_000),
        cpu_quota=st.integers(1, 800),
        cpuset=st.sampled_from(["", "0-1", "0,2"]),
        memory=st.integers(1, 1 << 20).map(lambda mebibytes: mebibytes << 20),
        io_weight=st.integers(1, 1000),
        disk_read_iops=st.integers(0, 10_000),
        disk_write_iops=st.integers(0, 10_000),
        disk_read_rate=st.integers(0, 1 << 40),
        disk_write_rate=st.integers(0, 1 << 40),
        net_rate=st.integers(1, 1 << 20).map(lambda kibibytes: kibibytes << 10),
    )
)
def test_what_is_written_is_read(wanted):
    assert limits_xml.read(written(wanted)) == wanted


def test_without_limits_nothing_is_written():
    root = written(Limits())
    assert [element.tag for element in root.iter()] == [
        "domain",
        "vcpu",
        "devices",
        "disk",
        "interface",
    ]
    assert limits_xml.read(root) == Limits()


def test_a_quota_is_of_the_whole_guest():
    root = written(Limits(cpu_quota=150))
    assert root.findtext("cputune/global_quota") == "150000"
    assert root.findtext("cputune/global_period") == "100000"
    assert root.find("cputune/quota") is None


def test_libvirts_unlimited_is_no_limit():
    out = Writer("domain")
    tune = out.add(out.root, "memtune")
    out.add(tune, "hard_limit", unit="KiB", text=str(limits.NO_MEMORY_LIMIT))
    assert limits_xml.read(out.root) == Limits()


def test_pins_that_agree_are_the_cpuset_of_a_running_domain():
    out = Writer("domain")
    out.add(out.root, "vcpu", cpuset="0-1", text="2")
    tune = out.add(out.root, "cputune")
    out.add(tune, "vcpupin", vcpu="0", cpuset="1")
    assert limits_xml.read(out.root).cpuset == "0-1"  # the other one has none
    second = out.add(tune, "vcpupin", vcpu="1", cpuset="1")
    assert limits_xml.read(out.root).cpuset == "1"
    second.set("cpuset", "0")
    assert limits_xml.read(out.root).cpuset == "0-1"


def test_devices_of_other_hands_do_not_speak_for_an_owned_machine():
    out = Writer("domain")
    metadata = out.add(out.root, "metadata")
    out.add(metadata, "{urn:vmctl:machine:1}machine", project="p", digest="d")
    devices = out.add(out.root, "devices")
    limits_xml.write_disk(Limits(disk_read_iops=5), out.add(devices, "disk"), out)
    limits_xml.write_card(Limits(net_rate=1024), out.add(devices, "interface"), out)
    own = metadata_xml.read(out.root)
    assert own is not None
    assert limits_xml.read(out.root, own) == Limits()
    assert limits_xml.read(out.root) == Limits(disk_read_iops=5, net_rate=1024)


def test_every_limit_has_a_key_in_the_spec():
    assert set(limits.SPEC_KEYS) == {field.name for field in dataclasses.fields(Limits)}
    assert set(limits.SPEC_KEYS.values()) == set(ResourcesSpec.model_fields)
