"""Recorded hosts are replayed: verdict, cause and the command that fixes it."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from vmctl.host import nesting, verdict
from vmctl.host.facts import HostFacts
from vmctl.host.nesting import Layer
from vmctl.host.verdict import Code

HOSTS = pathlib.Path(__file__).parents[1] / "data" / "hosts"

EXPECTED: dict[str, tuple[bool, str, str]] = {
    "aarch64": (False, "architecture", "x86-64"),
    "amd-nesting-off": (True, "usable", ""),
    "bios-disabled-amd": (False, "firmware-disabled", "'SVM Mode', then power the machine off"),
    "bios-disabled-intel": (False, "firmware-disabled", "'Intel Virtualization Technology (VT-x)'"),
    "container-device-denied": (False, "container", "podman run --device /dev/kvm"),
    "container-no-device": (False, "container", "docker run --device /dev/kvm"),
    "emulated-amd-module-not-loaded": (False, "module-not-loaded", "sudo modprobe kvm_amd"),
    "intel-nesting-off": (True, "usable", ""),
    "kvm-amd-fine": (True, "usable", ""),
    "kvm-busy-virtualbox": (False, "busy", "modprobe -r vboxnetflt vboxnetadp vboxdrv"),
    "kvm-forbidden": (False, "forbidden", "sudo usermod -aG kvm alice"),
    "kvm-forbidden-alpine": (False, "forbidden", "sudo addgroup alice kvm"),
    "kvm-group-not-active": (False, "group-not-active", "newgrp kvm"),
    "kvm-in-emulated-amd": (True, "usable", ""),
    "kvm-intel-fine": (True, "usable", ""),
    "kvm-module-not-loaded": (False, "module-not-loaded", "sudo modprobe kvm_intel"),
    "kvm-module-not-loaded-nixos": (False, "module-not-loaded", 'kernelModules = [ "kvm_intel" ]'),
    "kvm-out-of-memory": (False, "broken", "mode full"),
    "no-flag-bare-metal": (False, "no-cpu-feature", "mode full"),
    "no-vhost-net": (True, "usable", ""),
    "probe-times-out": (False, "probe-timed-out", "vmctl doctor --fresh"),
    "qemu-user-refused": (False, "refused-to-qemu", "sudo chgrp kvm /dev/kvm && sudo chmod 660"),
    "shadow-paging": (True, "usable", ""),
    "software-kvm-no-flags": (False, "software-kvm", "mode full"),
    "vm-in-virtualbox": (False, "no-nesting-below", "VBoxManage modifyvm NAME --nested-hw-virt on"),
    "vm-without-nested": (False, "no-nesting-below", "options kvm_intel nested=1"),
}


def host(name: str) -> HostFacts:
    return HostFacts.from_dict(json.loads((HOSTS / f"{name}.json").read_text()))


def test_every_recorded_host_has_an_expectation() -> None:
    assert {path.stem for path in HOSTS.glob("*.json")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_recorded_host(name: str) -> None:
    usable, code, command = EXPECTED[name]
    decided = verdict.kvm_verdict(host(name))
    assert (decided.usable, decided.code) == (usable, code)
    assert command in decided.fix
    assert bool(decided.cause) == bool(decided.fix) == (not usable)
    assert ".." not in decided.cause


@pytest.mark.parametrize("name", EXPECTED)
def test_facts_survive_json(name: str) -> None:
    facts = host(name)
    assert HostFacts.from_dict(json.loads(json.dumps(facts.as_dict()))) == facts


def test_closed_to_qemu_does_not_matter_where_qemu_runs_as_the_user() -> None:
    facts = host("qemu-user-refused")
    assert verdict.kvm_verdict(facts, system=False).usable
    assert not verdict.kvm_verdict(facts, system=True).usable


def test_without_probe_the_processor_is_believed() -> None:
    unprobed = dataclasses.replace(host("kvm-intel-fine"), probe=None)
    assert verdict.kvm_verdict(unprobed).usable
    assert verdict.kvm_verdict(unprobed).code == Code.UNPROBED
    software = dataclasses.replace(host("software-kvm-no-flags"), probe=None)
    assert not verdict.kvm_verdict(software).usable


def test_a_software_kvm_that_passes_the_probe_is_usable() -> None:
    passed = host("kvm-intel-fine").probe
    facts = dataclasses.replace(host("software-kvm-no-flags"), probe=passed)
    assert verdict.kvm_verdict(facts).usable


def test_disabled_by_firmware_is_not_claimed_inside_a_virtual_machine() -> None:
    facts = dataclasses.replace(host("bios-disabled-intel"), virtual="vmware")
    decided = verdict.kvm_verdict(facts)
    assert decided.code == Code.NO_NESTING_BELOW
    assert 'vhv.enable = "TRUE"' in decided.fix


def test_firmware_disabled_is_seen_in_the_register_alone() -> None:
    facts = dataclasses.replace(host("bios-disabled-amd"), kernel_log=())
    decided = verdict.kvm_verdict(facts)
    assert decided.code == Code.FIRMWARE_DISABLED
    assert "VM_CR" in decided.cause


def test_a_static_node_without_module_asks_for_the_module() -> None:
    facts = host("kvm-intel-fine")
    node = dataclasses.replace(facts.kvm_node, errno=19)
    decided = verdict.kvm_verdict(
        dataclasses.replace(facts, kvm_node=node, kvm_api=None, create_vm_errno=None, probe=None)
    )
    assert decided.code == Code.MODULE_NOT_LOADED


def test_a_node_without_group_rights_is_opened_first() -> None:
    facts = host("kvm-forbidden")
    node = dataclasses.replace(facts.kvm_node, mode=0o600, group="root")
    fix = verdict.kvm_verdict(dataclasses.replace(facts, kvm_node=node)).fix
    assert fix.index("chmod 660 /dev/kvm") < fix.index("usermod -aG kvm alice")


def test_a_closed_device_without_processor_promises_nothing() -> None:
    facts = host("kvm-forbidden")
    without = dataclasses.replace(facts, cpu=host("no-flag-bare-metal").cpu)
    assert "Whether it works is open" in verdict.kvm_verdict(without).cause
    assert "Whether it works is open" not in verdict.kvm_verdict(facts).cause


def test_wrong_api_is_broken() -> None:
    facts = dataclasses.replace(host("kvm-intel-fine"), kvm_api=11, probe=None)
    assert verdict.kvm_verdict(facts).code == Code.BROKEN


@pytest.mark.parametrize(
    ("name", "usable", "code", "command"),
    [
        ("intel-nesting-off", False, "nested-off", "options kvm_intel nested=1"),
        ("amd-nesting-off", False, "nested-off", "options kvm_amd nested=1"),
        ("kvm-intel-fine", True, "nested-kvm", ""),
        ("kvm-in-emulated-amd", True, "nested-kvm", ""),
        ("software-kvm-no-flags", True, "nested-tcg", ""),
        ("no-flag-bare-metal", True, "nested-tcg", ""),
        ("aarch64", False, "architecture", "x86-64"),
    ],
)
def test_nesting(name: str, usable: bool, code: str, command: str) -> None:
    decided = nesting.nested_verdict(host(name))
    assert (decided.usable, decided.code) == (usable, code)
    assert command in decided.fix


def test_nesting_that_kvm_does_not_offer() -> None:
    facts = host("kvm-intel-fine")
    assert facts.nested_cpuid is not None
    hidden = dataclasses.replace(facts.nested_cpuid, vmx=False)
    decided = nesting.nested_verdict(dataclasses.replace(facts, nested_cpuid=hidden))
    assert (decided.usable, decided.code) == (False, "nested-hidden")


@pytest.mark.parametrize(
    ("name", "layer", "words"),
    [
        ("kvm-intel-fine", Layer.BARE_METAL, "type II"),
        ("software-kvm-no-flags", Layer.VIRTUAL_MACHINE, "under KVM"),
        ("kvm-in-emulated-amd", Layer.VIRTUAL_MACHINE, "under QEMU's emulation"),
        ("vm-in-virtualbox", Layer.VIRTUAL_MACHINE, "nested"),
        ("container-no-device", Layer.CONTAINER, "docker"),
    ],
)
def test_platform(name: str, layer: Layer, words: str) -> None:
    platform = nesting.platform(host(name))
    assert platform.layer is layer
    assert words in platform.sentence


def test_dom0_is_type_1() -> None:
    facts = dataclasses.replace(host("kvm-intel-fine"), virtual="xen-dom0")
    assert nesting.platform(facts).layer is Layer.TYPE_1
