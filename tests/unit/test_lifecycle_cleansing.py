"""Which copies are cleaned, by what guest, and of which key."""

from __future__ import annotations

import dataclasses
import pathlib
import xml.etree.ElementTree as ET

import pytest

from tests import replay
from vmctl.lifecycle import cleansing
from vmctl.machine.model import Accel, Disk, Image, Machine
from vmctl.machine.xml import domain
from vmctl.store.layout import MachineFiles

TINY = Image(name="tiny", digest="1" * 64, kernel="/k", initrd="/i", cmdline="console=ttyS0")


@pytest.fixture(params=["disks", "full", "secure-boot-tpm", "nested", "mounts"])
def machine(request: pytest.FixtureRequest) -> Machine:
    around = replay.surroundings(replay.host("kvm-intel-fine"))
    return replay.machines(replay.TEMPLATES / f"{request.param}.yaml", around)[0]


def test_the_key_is_only_the_key(tmp_path: pathlib.Path) -> None:
    place = MachineFiles(tmp_path)
    # Without one nothing may be taken out: every line holds the empty text.
    assert cleansing._key(place) == ""
    (tmp_path / "id_ed25519.pub").write_text("ssh-ed25519 AAAAkey vmctl@web\n")
    assert cleansing._key(place) == "AAAAkey"
    (tmp_path / "id_ed25519.pub").write_text("\n")
    assert cleansing._key(place) == ""


def test_data_beside_a_system_in_memory_is_left_alone(machine: Machine) -> None:
    data, root = (Disk(name=name, file=f"/{name}", size=1 << 20) for name in ("data", "root"))
    assert not cleansing.needed(dataclasses.replace(machine, disks=()))
    assert not cleansing.needed(dataclasses.replace(machine, disks=(data,)))
    # Whether there is an image below it or not: a full copy has none.
    assert cleansing.needed(dataclasses.replace(machine, disks=(root, data)))


def test_the_guest_has_the_disks_and_nothing_else(machine: Machine) -> None:
    root = Disk(name="root", file="/root.qcow2", size=1 << 20, direct=True, aio="io_uring")
    copied = dataclasses.replace(machine, disks=(root,))
    washer = cleansing._washer(copied, TINY, pathlib.Path("/log"))
    found = ET.fromstring(domain.write(washer).text())
    assert found.get("type") == ("kvm" if machine.accel is Accel.KVM else "qemu")
    assert found.findtext("name") != machine.name
    assert found.findtext("uuid") != machine.uuid
    assert found.findtext("os/kernel") == "/k"
    # It must not take a blank disk for one to write a file system on.
    assert "vmctl.format=no" in (found.findtext("os/cmdline") or "").split()
    devices = found.find("devices")
    assert devices is not None
    assert [each.get("file") for each in devices.iterfind("disk/source")] == ["/root.qcow2"]
    for kind in ("interface", "filesystem", "tpm", "graphics", "hostdev"):
        assert devices.find(kind) is None
    assert [each.get("name") for each in devices.iterfind("channel/target")] == [
        "org.qemu.guest_agent.0"
    ]
