"""The whole examination over recorded hosts: levels, codes, cause and fix, and the document."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re

import pytest

from vmctl.doctor import checks, codes, modes, on_store
from vmctl.doctor.model import Finding, Level, LibvirtFacts
from vmctl.host.facts import HostFacts, QemuUser
from vmctl.machine.model import Mode

ROOT = pathlib.Path(__file__).parents[2]
HOSTS = ROOT / "tests" / "data" / "hosts"
NAMES = sorted(path.stem for path in HOSTS.glob("*.json"))

SYSTEM = LibvirtFacts(
    reachable=True,
    uri="qemu:///system",
    libvirt_version="9.0.0",
    qemu_version="7.2.22",
    kvm_in_capabilities=True,
)
SESSION = dataclasses.replace(SYSTEM, uri="qemu:///session")
AWAY = LibvirtFacts(reachable=False, uri="qemu:///system", error="Nobody listens.")


def host(name: str) -> HostFacts:
    return HostFacts.from_dict(json.loads((HOSTS / f"{name}.json").read_text()))


def examined(
    facts: HostFacts, store: pathlib.Path, libvirt: LibvirtFacts | None = SYSTEM
) -> dict[str, Finding]:
    return {finding.code: finding for finding in checks.examine(facts, libvirt, store)}


@pytest.mark.parametrize("libvirt", [SYSTEM, SESSION, AWAY, None])
@pytest.mark.parametrize("name", NAMES)
def test_every_host_gets_a_whole_diagnosis(
    name: str, libvirt: LibvirtFacts | None, tmp_path: pathlib.Path
) -> None:
    findings = checks.examine(host(name), libvirt, tmp_path)
    found = [finding.code for finding in findings]
    assert found == sorted(set(found), key=list(codes.TITLES).index)
    for finding in findings:
        assert finding.title == codes.TITLES[finding.code]
        assert finding.detail
        assert finding.bad == bool(finding.cause) == bool(finding.fix), finding


AT_FAULT = {
    "aarch64": "HOST001",
    "bios-disabled-amd": "CPU003",
    "bios-disabled-intel": "CPU003",
    "container-device-denied": "KVM004",
    "container-no-device": "KVM003",
    "kvm-busy-virtualbox": "KVM007",
    "kvm-forbidden": "KVM004",
    "kvm-group-not-active": "KVM004",
    "kvm-module-not-loaded": "KVM002",
    "kvm-out-of-memory": "KVM006",
    "no-flag-bare-metal": "CPU001",
    "probe-times-out": "KVM010",
    "qemu-user-refused": "KVM005",
    "software-kvm-no-flags": "KVM010",
    "vm-in-virtualbox": "CPU001",
    "vm-without-nested": "CPU001",
}


@pytest.mark.parametrize(("name", "code"), AT_FAULT.items())
def test_the_check_at_fault_carries_the_fix(name: str, code: str, tmp_path: pathlib.Path) -> None:
    found = examined(host(name), tmp_path)
    assert found[code].level is Level.FAILURE
    assert found["KVM001"].level is Level.FAILURE
    assert found[code].fix == found["KVM001"].fix
    failing = {each for each in found if found[each].level is Level.FAILURE}
    # pytest keeps its directories private, so the store is out of reach there.
    related = {code, "KVM001", "KVM012", "KVM013", "KVM014", "KVM015", "MODE001", "STORE001"}
    assert failing <= related


@pytest.mark.parametrize("name", ["kvm-intel-fine", "kvm-amd-fine"])
def test_a_host_without_fault(name: str, tmp_path: pathlib.Path) -> None:
    facts = dataclasses.replace(
        host(name), programs=dict.fromkeys(("swtpm", "swtpm_setup", "dnsmasq", "nft"), "/usr/bin/x")
    )
    found = examined(facts, tmp_path, SESSION)
    assert [each for each in found.values() if each.bad and not each.code.startswith("STORE")] == []
    assert found["MODE001"].detail.endswith("auto is paravirt")


def test_each_case_of_the_probe_is_shown(tmp_path: pathlib.Path) -> None:
    found = examined(host("software-kvm-no-flags"), tmp_path)
    assert found["KVM011"].level is Level.OK
    assert "suberror 1" in found["KVM012"].detail
    assert [found[f"KVM01{n}"].level for n in (2, 3, 4, 5)] == [Level.FAILURE] * 4


@pytest.mark.parametrize(
    ("name", "code", "command"),
    [
        ("shadow-paging", "CPU002", "options kvm_intel ept=1"),
        ("no-vhost-net", "NET001", "sudo modprobe vhost_net"),
        ("intel-nesting-off", "NEST001", "options kvm_intel nested=1"),
        ("amd-nesting-off", "NEST001", "options kvm_amd nested=1"),
        ("container-no-device", "NET002", "hand in /dev/net/tun"),
    ],
)
def test_warnings(name: str, code: str, command: str, tmp_path: pathlib.Path) -> None:
    found = examined(host(name), tmp_path)[code]
    assert found.level is Level.WARNING
    assert command in found.fix


def test_tpm_takes_both_programs(tmp_path: pathlib.Path) -> None:
    facts = dataclasses.replace(host("kvm-intel-fine"), programs={"swtpm": "/usr/bin/swtpm"})
    found = examined(facts, tmp_path)["TPM001"]
    assert found.detail == "missing: swtpm_setup"
    assert found.fix == "sudo apt install swtpm swtpm-tools"


def test_missing_pieces_name_their_packages(tmp_path: pathlib.Path) -> None:
    facts = dataclasses.replace(host("kvm-amd-fine"), programs={}, firmware=(), emulator="")
    found = examined(facts, tmp_path)
    assert found["EMU001"].fix == "sudo dnf install qemu-system-x86"
    assert found["FW001"].fix == "sudo dnf install edk2-ovmf"
    assert found["NET003"].fix == "sudo dnf install dnsmasq"
    assert found["NET004"].level is Level.WARNING
    assert found["MODE001"].level is Level.FAILURE


def test_secure_boot_needs_smm(tmp_path: pathlib.Path) -> None:
    facts = host("kvm-intel-fine")
    assert facts.nested_cpuid is not None
    without = dataclasses.replace(facts.nested_cpuid, smm=False)
    found = examined(dataclasses.replace(facts, nested_cpuid=without), tmp_path)
    assert found["FW002"].level is Level.WARNING


def test_libvirt_that_does_not_answer(tmp_path: pathlib.Path) -> None:
    found = examined(host("kvm-intel-fine"), tmp_path, AWAY)
    assert found["LIBVIRT001"].cause == "Nobody listens."
    assert "sudo systemctl enable --now libvirtd.socket" in found["LIBVIRT001"].fix
    assert found["MODE001"].level is Level.FAILURE


def test_libvirt_that_does_not_know_of_kvm(tmp_path: pathlib.Path) -> None:
    outdated = dataclasses.replace(SESSION, kvm_in_capabilities=False)
    facts = host("kvm-intel-fine")
    assert examined(facts, tmp_path, outdated)["LIBVIRT003"].level is Level.FAILURE
    assert modes.mode_verdict(facts, Mode.PARAVIRT, outdated).code == "not-offered"
    assert modes.mode_verdict(facts, Mode.FULL, outdated).usable


def test_an_old_libvirt(tmp_path: pathlib.Path) -> None:
    old = dataclasses.replace(SYSTEM, libvirt_version="7.10.0")
    assert examined(host("kvm-intel-fine"), tmp_path, old)["LIBVIRT002"].level is Level.WARNING
    recent = dataclasses.replace(SYSTEM, libvirt_version="10.0.0")
    assert examined(host("kvm-intel-fine"), tmp_path, recent)["LIBVIRT002"].level is Level.OK


def test_libvirt_that_asks_qemu_anew_at_every_start(tmp_path: pathlib.Path) -> None:
    facts = host("qemu-user-refused")
    found = examined(facts, tmp_path)["KVM020"]
    assert found.level is Level.WARNING
    assert "sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm" in found.fix
    assert "/etc/udev/rules.d/" in found.fix
    assert examined(host("kvm-intel-fine"), tmp_path)["KVM020"].level is Level.OK
    assert "KVM020" not in examined(facts, tmp_path, SESSION)


@pytest.mark.parametrize(
    ("name", "mode", "usable"),
    [
        ("kvm-intel-fine", Mode.PARAVIRT, True),
        ("kvm-intel-fine", Mode.HARDWARE, True),
        ("kvm-intel-fine", Mode.FULL, True),
        ("software-kvm-no-flags", Mode.PARAVIRT, False),
        ("software-kvm-no-flags", Mode.HARDWARE, False),
        ("software-kvm-no-flags", Mode.FULL, True),
        ("software-kvm-no-flags", Mode.TCG_VIRTIO, True),
        ("software-kvm-no-flags", None, True),
        ("kvm-in-emulated-amd", None, False),  # it has no emulator
        ("aarch64", Mode.FULL, False),
        ("aarch64", None, False),
    ],
)
def test_modes(name: str, mode: Mode | None, usable: bool) -> None:
    decided = modes.mode_verdict(host(name), mode)
    assert decided.usable is usable
    assert usable or decided.fix


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("kvm-intel-fine", Mode.PARAVIRT),
        ("software-kvm-no-flags", Mode.TCG_VIRTIO),
        ("aarch64", None),
    ],
)
def test_best_mode(name: str, best: Mode | None) -> None:
    assert modes.best_mode(host(name)) is best


OUTSIDER = QemuUser(name="libvirt-qemu", uid=64055, gid=64055, gids=(64055,))


def test_a_store_out_of_reach(tmp_path: pathlib.Path) -> None:
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    for above in tmp_path.parents:
        if not above.stat().st_mode & 0o001:
            closed = above  # pytest's own directories are private to the user
    store = tmp_path / "home" / "vmctl"
    store.mkdir()
    assert on_store.closed_directory(store, OUTSIDER) == closed
    facts = dataclasses.replace(host("kvm-intel-fine"), qemu_user=OUTSIDER)
    found = examined(facts, store)["STORE001"]
    assert found.level is Level.FAILURE
    assert f"sudo setfacl -m u:libvirt-qemu:x {closed}" in found.fix
    assert examined(facts, store, SESSION)["STORE001"].level is Level.INFO


def test_a_store_within_reach() -> None:
    assert on_store.closed_directory(pathlib.Path("/usr/share"), OUTSIDER) is None
    assert on_store.closed_directory(pathlib.Path("/usr/share/no/such/store"), OUTSIDER) is None


def test_a_store_that_others_may_write(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o777)
    found = examined(host("kvm-intel-fine"), tmp_path)["STORE002"]
    assert found.level is Level.FAILURE
    assert found.fix == f"chmod go-w {tmp_path}"


def test_a_store_below_a_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert examined(host("kvm-intel-fine"), file / "store")["STORE002"].level is Level.FAILURE


def test_disk_space(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = host("kvm-intel-fine")
    for limit, level in ((0, Level.OK), (1 << 62, Level.WARNING)):
        monkeypatch.setattr(on_store, "LITTLE", limit)
        assert examined(facts, tmp_path / "not" / "there")["STORE003"].level is level
    monkeypatch.setattr(on_store, "TOO_LITTLE", 1 << 62)
    assert examined(facts, tmp_path)["STORE003"].level is Level.FAILURE


def test_the_document_lists_the_codes_with_their_titles() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text()
    rows = re.findall(r"^\| `([A-Z]+[0-9]{3})` \| ([^|]+?) \|", text, re.MULTILINE)
    assert rows == list(codes.TITLES.items())


def test_the_document_lists_the_verdicts() -> None:
    from vmctl.host.verdict import Code

    text = (ROOT / "docs" / "doctor.md").read_text()
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted([*Code, "no-emulator", "no-libvirt", "not-offered"])


def test_shares(tmp_path: pathlib.Path) -> None:
    plain = host("software-kvm-no-flags")
    root = dataclasses.replace(plain, user=dataclasses.replace(plain.user, uid=0), programs={})
    missing = examined(root, tmp_path)["SHARE001"]
    assert missing.level is Level.WARNING
    assert "apt install virtiofsd" in missing.fix
    there = dataclasses.replace(root, programs={"virtiofsd": "/usr/libexec/virtiofsd"})
    assert examined(there, tmp_path)["SHARE001"].level is Level.OK
    user = dataclasses.replace(root, user=dataclasses.replace(plain.user, uid=1000))
    for facts, libvirt in ((root, SESSION), (user, SYSTEM)):
        found = examined(facts, tmp_path, libvirt)["SHARE001"]
        assert (found.level, found.detail[:2]) == (Level.INFO, "9p")
