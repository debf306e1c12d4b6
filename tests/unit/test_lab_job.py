"""The job, the domain that runs it, and what makes a run void."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import tarfile
import xml.etree.ElementTree as ET

import pytest

from vmctl import errors
from vmctl.images import initramfs
from vmctl.lab import cpio, explain, footprint, job, tools
from vmctl.lab import domain as lab_domain
from vmctl.lab.job import Job
from vmctl.machine.model import Chipset, Disk, Image, Machine, Mode, Ready
from vmctl.machine.xml import domain as domain_xml
from vmctl.store.storage import Storage

PLACES = lab_domain.Places(
    disk=pathlib.Path("/lab/disk.raw"),
    initrd=pathlib.Path("/lab/initrd"),
    answer=pathlib.Path("/lab/answer"),
    console=pathlib.Path("/lab/console"),
    root=pathlib.Path("/lab/root.qcow2"),
)
WANTED = Job(workloads=("timer", "cpuid"), seconds=0.1, slices=3, port=4000)


def machine(mode: Mode) -> Machine:
    return Machine(
        name="m",
        project="lab",
        uuid="0f3c1f6e-8a71-4a36-9d5e-0b7f7d0f0c11",
        mode=mode,
        chipset=Chipset.Q35,
        cpus=1,
        cpus_max=1,
        memory=512 << 20,
        memory_max=512 << 20,
        ready=Ready(),
        console_log="/store/console.log",
        image=Image(name="tiny", digest="d" * 64, kernel="/k", initrd="/i"),
    )


@pytest.mark.parametrize("mode", list(Mode))
def test_every_mode_has_the_jobs_disk_and_a_second_serial_port(mode: Mode) -> None:
    adapted = lab_domain.adapted(machine(mode), PLACES, Storage(direct=True), WANTED.size)
    root = ET.fromstring(lab_domain.write(adapted, PLACES))
    disks = {each.get("file") for each in root.iterfind("devices/disk/source")}
    assert disks == {"/lab/disk.raw"}
    bus = root.find("devices/disk/target")
    assert bus is not None
    assert bus.get("bus") == ("virtio" if adapted.virtio else "sata")
    ports = [each.get("port") for each in root.iterfind("devices/serial/target")]
    assert ports == ["0", "1"]
    assert root.findtext("os/initrd") == "/lab/initrd"
    assert root.get("type") == adapted.accel.domain_type


@pytest.mark.parametrize(
    ("mode", "kind", "kvm", "signature", "said"),
    [
        (Mode.FULL, "qemu", False, "TCGTCGTCGTCG", ""),
        (Mode.HARDWARE, "kvm", True, "none", ""),
        (Mode.PARAVIRT, "kvm", True, "KVMKVMKVM", ""),
        (Mode.HARDWARE, "qemu", False, "TCGTCGTCGTCG", "live XML says type 'qemu'"),
        (Mode.HARDWARE, "kvm", False, "TCGTCGTCGTCG", "KVM is not enabled"),
        (Mode.PARAVIRT, "kvm", True, "TCGTCGTCGTCG", "signature of TCG"),
        (Mode.FULL, "kvm", True, "KVMKVMKVM", "live XML says type 'kvm'"),
    ],
)
def test_a_run_on_something_else_than_was_asked_for_is_void(
    mode: Mode, kind: str, kvm: bool, signature: str, said: str
) -> None:
    live = f"<domain type='{kind}'><os><type machine='pc-q35-7.2'>hvm</type></os></domain>"
    proof = lab_domain.proof(live, kvm_enabled=kvm)
    found = lab_domain.objection(machine(mode), proof, {"hypervisor": signature})
    assert (said in found) if said else found == ""


def test_no_proof_is_an_objection_too() -> None:
    assert lab_domain.objection(machine(Mode.FULL), {}, {})


def test_the_archive_is_the_same_for_the_same_content_and_begins_with_its_name() -> None:
    first, second = (job.archive(b"probe", WANTED.script("10.0.2.2"), ()) for _ in range(2))
    assert first == second
    assert first.startswith(b"vmctl-lab")
    with tarfile.open(fileobj=io.BytesIO(first)) as archived:
        assert archived.getnames() == ["vmctl-lab/run", "vmctl-lab/probe"]
        assert all(member.mode == 0o755 for member in archived)


def test_the_script_names_everything_and_quotes_nothing_away() -> None:
    text = Job(
        workloads=("timer",),
        seconds=0.05,
        slices=2,
        tools=tools.TOOLS,
        ports=dict.fromkeys(tools.BY_NAME, 5000),
        port=4000,
        offset=1 << 22,
    ).script("10.0.2.2")
    lines = text.decode().splitlines()
    assert '"$1/probe" run 0.05 2 "$2" 4194304 10.0.2.2 4000 timer' in lines
    assert any('"--filename=$2"' in line for line in lines)
    assert lines[-1] == "echo vmctl-lab done"


def test_without_a_network_its_tools_are_not_tried() -> None:
    text = Job(workloads=(), seconds=1, slices=1, tools=tools.TOOLS).script("-").decode()
    assert 'iperf3" -c' not in text
    assert "vmctl-lab void iperf3-send there is no network" in text


def test_a_systems_disk_is_made_anew_beside_the_jobs_and_the_users_stay_out() -> None:
    disks = (
        Disk(name="root", file="/store/root.qcow2", size=4 << 30, base="/image/disk.qcow2"),
        Disk(name="data", file="/store/data.qcow2", size=1 << 30),
    )
    given = dataclasses.replace(machine(Mode.FULL), disks=disks, seed="/store/seed.iso")
    adapted = lab_domain.adapted(given, PLACES, Storage(direct=True), WANTED.size)
    assert [disk.file for disk in adapted.disks] == ["/lab/root.qcow2", "/lab/disk.raw"]
    assert adapted.disks[0].base == "/image/disk.qcow2"
    assert adapted.seed == ""


def test_an_archive_puts_nothing_outside(tmp_path: pathlib.Path) -> None:
    for path in ("../x", "/x", "a/../../x"):
        with pytest.raises(errors.RefusedError):
            cpio.place(tmp_path, path, initramfs.regular(b""))
    cpio.place(tmp_path, "out", initramfs.link("/"))
    with pytest.raises(errors.RefusedError):
        cpio.place(tmp_path, "out/x", initramfs.regular(b""))


@pytest.mark.parametrize("content", [b"", b"not a cpio archive", b"070701" + b"0" * 50])
def test_what_is_no_archive_is_refused(content: bytes) -> None:
    with pytest.raises(errors.RefusedError):
        list(cpio.entries(content))


def test_memory_beyond_the_guests_own() -> None:
    smaps = """\
55d0c0a00000-55d0c1000000 r-xp 00000000 00:00 0
Size:               6144 kB
Rss:                4096 kB
7f0000000000-7f0020000000 rw-p 00000000 00:00 0
Size:             524288 kB
Rss:              100000 kB
7f0030000000-7f0030001000 rw-p 00000000 00:00 0
Size:                  4 kB
Rss:                   4 kB
""".splitlines()
    assert footprint.beyond_guest(smaps, 512 << 20) == 4100 * 1024


@pytest.mark.parametrize("mode", list(Mode))
def test_every_stop_of_the_tour_has_xml_and_reasons(mode: Mode) -> None:
    adapted = lab_domain.adapted(machine(mode), PLACES, Storage(direct=True), WANTED.size)
    argv = ["/usr/bin/qemu", "-accel", mode.accel.value, "-cpu", "max", "-m", "512", "-no-hpet"]
    stops = explain.tour(adapted, domain_xml.write(adapted), argv)
    assert len(stops) == len(explain.STATIONS)
    by_title = {stop.title: stop for stop in stops}
    first = by_title["Who executes the instructions"]
    assert first.argv == (f"-accel {mode.accel}", "-cpu max")
    assert first.xml[0] == f'<domain type="{mode.accel.domain_type}">'
    assert all(stop.reasons for stop in stops if stop.xml)
    assert by_title["Disk"].xml


@pytest.mark.parametrize("mode", ["full", "tcg-virtio"])
def test_what_a_guest_sees_was_recorded_and_holds_no_key(mode: str) -> None:
    seen = explain.recorded(mode)
    assert {station.seen for station in explain.STATIONS} <= set(seen)
    assert "vmctl.key" not in str(seen)
    assert ("virtio" in " ".join(seen["disk"])) is (mode == "tcg-virtio")
