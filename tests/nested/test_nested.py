"""The acceptance test of the whole: vmctl in a machine with (emulated) AMD-V, on real KVM.

What a bare CI machine lacks is proven inside: kvm_amd, a stock kernel, systemd, cgroup v2. All
tests share one boot of the lab host; how long they take is in docs/lab.md.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.nested.conftest import Lab, json_of
from vmctl import __version__

MODES = ("hardware", "paravirt")
"""The last one runs on for the tests that follow; each guest that idles slows all others here."""

FASTER = 3.0
"""What the product claims: how many times as fast as `full` a guest is ready in `hardware`."""


def test_vmctl_is_this_one(lab: Lab) -> None:
    assert lab.run("vmctl --version").out == f"vmctl {__version__}\n"


def test_doctor_says_that_kvm_is_usable(lab: Lab) -> None:
    data = json_of(lab.run("vmctl doctor --json"))
    assert data["auto"] == "paravirt"
    verdicts = data["modes"]
    assert isinstance(verdicts, dict)
    assert all(verdict["usable"] for verdict in verdicts.values())
    findings = data["findings"]
    assert isinstance(findings, list)
    levels = {finding["code"]: finding["level"] for finding in findings}
    for code in ("KVM001", "KVM010", "LIBVIRT001", "LIBVIRT003", "NET001", "NET005"):
        assert levels[code] == "ok", code
    assert lab.run("cat /sys/module/kvm_amd/parameters/npt").out.strip() in ("Y", "1")


@pytest.mark.parametrize("mode", MODES)
def test_up_runs_on_kvm(lab: Lab, mode: str) -> None:
    name = f"in-{mode}"
    lab.up(name, f"mode: {mode}\n")
    live = ET.fromstring(lab.run(f"virsh dumpxml {name}").out)
    assert live.get("type") == "kvm"
    buses = {target.get("bus") for target in live.iterfind("devices/disk/target")}
    models = {model.get("type") for model in live.iterfind("devices/interface/model")}
    assert models == ({"virtio"} if mode == "paravirt" else {"e1000e"})
    assert buses <= {"virtio" if mode == "paravirt" else "sata"}
    asked = f'virsh qemu-monitor-command {name} \'{{"execute": "query-kvm"}}\''
    assert '"enabled":true' in lab.run(asked).out.replace(" ", "")
    status = json_of(lab.run(f"vmctl status {name} --json"))
    assert (status["accel"], status["ready"], status["drift"]) == ("kvm", True, [])
    if mode != MODES[-1]:
        lab.run(f"vmctl stop --force {name}")


def test_snapshot_and_restore(lab: Lab) -> None:
    name = "in-paravirt"

    def inside(command: str) -> str:
        return lab.run(f"vmctl exec -n {name} -- sh -c '{command}'").out

    inside("echo kept > /tmp/note")
    boot = inside("cat /proc/sys/kernel/random/boot_id")
    lab.run(f"vmctl snapshot create {name} one")
    inside("echo lost > /tmp/note")
    lab.run(f"vmctl snapshot restore -y {name} one")
    assert inside("cat /tmp/note") == "kept\n"
    assert inside("cat /proc/sys/kernel/random/boot_id") == boot
    live = ET.fromstring(lab.run(f"virsh dumpxml {name}").out)
    assert live.get("type") == "kvm"
    lab.run(f"vmctl stop --force {name}")


def test_limits_take_effect(lab: Lab) -> None:
    """What takes a stock kernel with cgroup v2 and traffic control."""
    name = "in-limits"
    lab.run("modprobe bfq && echo bfq > /sys/block/vda/queue/scheduler")
    lab.up(
        name,
        "mode: paravirt\nnetworks: [{kind: nat}]\ndisks: [{name: data, size: 64MiB}]\n"
        "resources: {memory_limit: 600MiB, io_weight: 300, cpu_weight: 50, cpu_quota: 150%, "
        "net_rate: 1MiB}\n",
    )
    # Which of the two groups of a machine holds which limit is libvirt's affair.
    script = (
        f"pid=$(cat /run/libvirt/qemu/{name}.pid); group=$(sed -n 's|^0::||p' /proc/$pid/cgroup); "
        'cd "/sys/fs/cgroup${group%%.scope*}.scope" && pwd; '
        "for name in memory.max cpu.weight cpu.max io.weight; do "
        "grep -H . $name libvirt/$name; done"
    )
    place, *values = lab.run(script).out.splitlines()
    assert place.startswith("/sys/fs/cgroup/machine.slice/")
    found = {line.removeprefix("libvirt/") for line in values}
    assert {
        f"memory.max:{600 << 20}",
        "cpu.weight:50",
        "cpu.max:150000 100000",
        "io.weight:default 300",
    } <= found
    card = ET.fromstring(lab.run(f"virsh dumpxml {name}").out).find("devices/interface/target")
    assert card is not None
    classes = lab.run(f"tc class show dev {card.get('dev')}").out
    # 1 MiB/s, in the units of tc.
    assert "rate 8192Kbit" in classes
    lab.run(f"vmctl down -y {name}")


def test_hardware_is_ready_several_times_as_fast_as_full(lab: Lab) -> None:
    lab.up("in-full", "mode: full\n", "--no-wait")
    lab.run("vmctl stop --force in-full")
    # Interleaved, as the host may be busy at times; what it takes is in docs/lab.md.
    first, full, second = (
        lab.boot_seconds(name) for name in ("in-hardware", "in-full", "in-hardware")
    )
    print(f"ready after: hardware {first:.1f} s and {second:.1f} s, full {full:.1f} s")
    assert full / min(first, second) >= FASTER, (first, full, second)


def test_nothing_is_left_inside(lab: Lab) -> None:
    lab.run("vmctl down -y in-hardware in-paravirt in-full")
    assert lab.run("virsh -q list --all").out.strip() == ""
    assert lab.run("systemctl --failed --no-legend").out.strip() == ""
