"""Facts from a made-up tree of /proc, /sys and /etc, and from trees that are odd."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from vmctl.deadline import Deadline
from vmctl.host import gather, processor, surroundings
from vmctl.host.facts import Cpu, HostFacts

CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Test CPU
flags\t\t: fpu vme {padding} lm vmx nonstop_tsc
vmx flags\t: vnmi preemption_timer ept vpid unrestricted_guest

processor\t: 1
vendor_id\t: GenuineIntel
"""


def put(root: pathlib.Path, path: str, text: str = "") -> pathlib.Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def facts_of(root: pathlib.Path) -> HostFacts:
    return gather.gather(Deadline.after(5), root=root)


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    # Flag lines are long: whoever reads them in pieces of 1024 bytes cuts flags in two.
    put(tmp_path, "proc/cpuinfo", CPUINFO.format(padding="x" * 1010))
    put(tmp_path, "proc/meminfo", "MemTotal:       2048 kB\nMemFree: 1 kB\n")
    put(tmp_path, "proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
    put(tmp_path, "proc/self/status", "Name:\tx\nUmask:\t0077\n")
    put(tmp_path, "etc/os-release", 'ID=ubuntu\nID_LIKE="debian linux"\nVERSION_ID="24.04"\n')
    put(tmp_path, "sys/module/kvm_intel/parameters/nested", "Y\n")
    put(tmp_path, "sys/module/kvm_intel/parameters/ept", "N\n")
    put(tmp_path, "sys/module/vboxdrv/version", "7\n")
    return tmp_path


def test_a_made_up_host(root: pathlib.Path) -> None:
    facts = facts_of(root)
    assert facts.cpu == Cpu(
        vendor="GenuineIntel",
        model="Test CPU",
        flags=("ept", "lm", "nonstop_tsc", "vmx", "vpid"),
        count=2,
    )
    assert facts.kernel == "6.1.0-18-amd64"
    assert facts.memory_total == 2 << 20
    assert facts.distribution.id_like == ("debian", "linux")
    assert facts.modules == ("kvm_intel", "vboxdrv")
    assert facts.parameters == {"kvm_intel.nested": "Y", "kvm_intel.ept": "N"}
    assert facts.umask == 0o077
    assert not facts.kvm_node.present
    assert facts.virtual == ""
    assert facts.container == ""


def test_an_empty_tree_is_a_host_without_anything(tmp_path: pathlib.Path) -> None:
    facts = facts_of(tmp_path)
    assert facts.kernel == ""
    assert facts.emulator == ""
    assert facts.programs == {}
    assert facts.memory_total == 0


def test_nonsense_in_files_is_survived(root: pathlib.Path) -> None:
    for path in ("proc/cpuinfo", "proc/meminfo", "etc/os-release", "etc/libvirt/qemu.conf"):
        put(root, path).write_bytes(b'\xff\xfe\0"=:\n' * 50)
    put(root, "usr/share/qemu/firmware/50-x.json", "[1, 2")
    put(root, "usr/share/qemu/firmware/60-x.json", '{"features": 1}')
    (root / "sys/module/kvm_amd/parameters/nested").mkdir(parents=True)
    put(root, "proc/self/status", "Umask:\n")
    assert facts_of(root).firmware == ()


def test_a_fifo_blocks_nobody(root: pathlib.Path) -> None:
    (root / "proc/cpuinfo").unlink()
    os.mkfifo(root / "proc/cpuinfo")
    (root / "dev").mkdir()
    os.mkfifo(root / "dev/kvm")
    os.mkfifo(root / "dev/kmsg")
    assert facts_of(root).kvm_node.present


def test_a_regular_file_as_device_is_not_asked(root: pathlib.Path) -> None:
    put(root, "dev/kvm", "hello")
    facts = facts_of(root)
    assert facts.kvm_node.present
    assert not facts.kvm_node.character
    assert not facts.kvm_node.openable
    assert facts.kvm_api is None


def test_firmware_descriptors(root: pathlib.Path) -> None:
    def descriptor(name: str, features: list[str], where: str = "usr/share") -> None:
        data = {
            "interface-types": ["uefi"],
            "mapping": {
                "executable": {"filename": "/fw/code.fd"},
                "nvram-template": {"filename": "/fw/vars.fd"},
            },
            "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
            "features": features,
        }
        put(root, f"{where}/qemu/firmware/{name}.json", json.dumps(data))

    descriptor("40-secure", ["secure-boot", "enrolled-keys"])
    descriptor("60-plain", ["acpi-s3"])
    assert facts_of(root).firmware == ()  # the files they name are not there
    put(root, "fw/code.fd")
    put(root, "fw/vars.fd")
    assert facts_of(root).firmware == ("uefi", "uefi-secure")
    put(root, "etc/qemu/firmware/40-secure.json", "")  # an empty file masks
    assert facts_of(root).firmware == ("uefi",)


def test_programs_below_another_root(root: pathlib.Path) -> None:
    for path in ("usr/bin/swtpm", "usr/sbin/dnsmasq", "usr/libexec/qemu-kvm"):
        put(root, path).chmod(0o755)
    facts = facts_of(root)
    assert facts.programs.keys() == {"swtpm", "dnsmasq"}
    assert not facts.tpm
    assert facts.emulator.endswith("usr/libexec/qemu-kvm")


def test_the_log_is_searched(root: pathlib.Path) -> None:
    put(
        root,
        "dev/kmsg",
        "6,1,2,-;x86/cpu: VMX (outside TXT) disabled by BIOS\n"
        "6,2,3,-;systemd: started\n"
        "6,3,4,-;kvm-clock: using sched offset\n",
    )
    log = facts_of(root).kernel_log
    assert log == ("x86/cpu: VMX (outside TXT) disabled by BIOS",)
    assert processor.says_disabled(log[0])


@pytest.mark.parametrize(
    ("line", "blames"),
    [
        ("kvm: disabled by bios", True),
        ("kvm_intel: VMX not enabled (by BIOS) in MSR_IA32_FEAT_CTL on CPU 0", True),
        ("SVM disabled (by BIOS) in MSR_VM_CR", True),
        ("kvm_amd: SVM not supported by CPU 0", False),
        ("SVM: PMU virtualization is disabled", False),
    ],
)
def test_lines_that_blame_the_firmware(line: str, blames: bool) -> None:
    assert processor.says_disabled(line) is blames


def namespaces(root: pathlib.Path, pid: int, uts: int = 4026531838, ipc: int = 4026531839) -> None:
    directory = root / "proc/self/ns"
    directory.mkdir(parents=True)
    for name, number in (("pid", pid), ("uts", uts), ("ipc", ipc)):
        (directory / name).symlink_to(f"{name}:[{number}]")


def test_a_marker_in_the_first_namespaces_is_no_container(root: pathlib.Path) -> None:
    namespaces(root, 4026531836)
    put(root, ".dockerenv")
    assert surroundings.container(root) == ""


def test_a_container_that_shares_the_pid_namespace(root: pathlib.Path) -> None:
    namespaces(root, 4026531836, uts=4026532000)
    put(root, ".dockerenv")
    assert surroundings.container(root) == "docker"


@pytest.mark.parametrize(
    ("marker", "text", "expected"),
    [
        (".dockerenv", "", "docker"),
        ("run/.containerenv", "", "podman"),
        ("run/systemd/container", "lxc\n", "lxc"),
        ("run/systemd/container", "systemd-nspawn\n", "unknown"),
        ("var/run/secrets/kubernetes.io/x", "", "kubernetes"),
        ("nothing", "", "unknown"),
    ],
)
def test_containers(root: pathlib.Path, marker: str, text: str, expected: str) -> None:
    namespaces(root, 4026532111)
    put(root, marker, text)
    assert surroundings.container(root) == expected


GUEST = Cpu(vendor="GenuineIntel", model="x", flags=("hypervisor", "lm"), count=1)
BARE = Cpu(vendor="GenuineIntel", model="x", flags=("lm", "vmx"), count=1)


@pytest.mark.parametrize(
    ("vendor", "product", "cpu", "expected"),
    [
        ("QEMU", "Standard PC (Q35 + ICH9, 2009)", GUEST, "kvm"),
        ("innotek GmbH", "VirtualBox", GUEST, "virtualbox"),
        ("VMware, Inc.", "VMware20,1", GUEST, "vmware"),
        ("Microsoft Corporation", "Virtual Machine", GUEST, "hyperv"),
        ("Microsoft Corporation", "Surface Laptop", BARE, ""),
        ("Amazon EC2", "m5.metal", BARE, ""),
        ("Amazon EC2", "t3.micro", GUEST, "amazon"),
        ("Google", "Google Compute Engine", GUEST, "google"),
        ("LENOVO", "20L5", BARE, ""),
        ("", "", GUEST, "unknown"),
    ],
)
def test_hypervisor_below(
    root: pathlib.Path, vendor: str, product: str, cpu: Cpu, expected: str
) -> None:
    put(root, "sys/class/dmi/id/sys_vendor", f"{vendor}\n")
    put(root, "sys/class/dmi/id/product_name", f"{product}\n")
    assert surroundings.virtual(root, cpu) == expected


def test_hypervisor_by_clock_and_signature(root: pathlib.Path) -> None:
    clocks = "sys/devices/system/clocksource/clocksource0/available_clocksource"
    put(root, clocks, "tsc kvm-clock \n")
    assert surroundings.virtual(root, GUEST) == "kvm"
    emulated = Cpu(vendor="AuthenticAMD", model="QEMU TCG CPU version 2.5+", flags=GUEST.flags)
    put(root, "sys/class/dmi/id/sys_vendor", "QEMU\n")
    assert surroundings.virtual(root, emulated) == "qemu"


def test_xen(root: pathlib.Path) -> None:
    put(root, "sys/hypervisor/type", "xen\n")
    assert surroundings.virtual(root, GUEST) == "xen"
    put(root, "proc/xen/capabilities", "control_d\n")
    assert surroundings.virtual(root, GUEST) == "xen-dom0"


def test_wsl(root: pathlib.Path) -> None:
    put(root, "proc/sys/kernel/osrelease", "5.15.90.1-microsoft-standard-WSL2\n")
    assert facts_of(root).wsl


def test_virtiofsd_is_found_where_no_path_leads(root: pathlib.Path) -> None:
    put(root, "usr/libexec/virtiofsd").chmod(0o755)
    assert facts_of(root).programs == {"virtiofsd": str(root / "usr/libexec/virtiofsd")}
