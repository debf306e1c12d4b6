from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET

import pytest

from tests import replay
from vmctl.machine.model import Disk, Machine, Nic, NicKind
from vmctl.machine.xml import controller, device, domain, metadata
from vmctl.machine.xml.device import Live


@pytest.fixture
def machine() -> Machine:
    around = replay.surroundings(replay.host("kvm-intel-fine"))
    (found,) = replay.machines(replay.TEMPLATES / "disks.yaml", around)
    return dataclasses.replace(found, cdroms=("/one.iso",))


def live(machine: Machine) -> Live:
    return Live(domain.write(machine).text())


def test_devices_are_found_by_what_they_are(machine: Machine) -> None:
    now = live(machine)
    first, second = machine.disks
    assert (now.target(first.name), now.target(second.name)) == ("vda", "vdb")
    assert now.target("absent") == ""
    card = now.card(machine.nics[0].mac)
    assert card is not None
    assert now.card("52:54:00:00:00:00") is None
    assert now.user_card == "ua-net0"
    assert now.drive("/one.iso") is not None
    assert now.drive("/two.iso") is None
    assert now.has_io_thread


def test_a_card_of_other_hands_is_not_taken_for_ours(machine: Machine) -> None:
    root = domain.write(machine).root
    devices = root.find("devices")
    assert devices is not None
    foreign = ET.fromstring("<interface type='user'><alias name='net7'/></interface>")
    devices.insert(0, foreign)
    assert Live(ET.tostring(root, encoding="unicode")).user_card == "ua-net0"


def test_a_new_disk_takes_no_name_that_is_in_use(machine: Machine) -> None:
    # Without the first, the second is vda; the one that runs is vdb.
    extra = Disk(name="extra", file="/extra", size=1 << 30)
    wanted = dataclasses.replace(machine, disks=(machine.disks[1], extra), boot_order=())
    element = ET.fromstring(live(machine).new_disk(wanted, "extra"))
    target, alias = element.find("target"), element.find("alias")
    assert target is not None
    assert alias is not None
    assert (target.get("dev"), alias.get("name")) == ("vdc", "ua-disk-extra")
    assert element.find("boot") is None


def test_a_new_card_takes_no_alias_that_is_in_use(machine: Machine) -> None:
    nic = Nic(kind=NicKind.USER, mac="52:54:00:00:00:01", model="virtio")
    wanted = dataclasses.replace(machine, nics=(nic,))
    element = ET.fromstring(live(machine).new_card(wanted, nic.mac))
    alias = element.find("alias")
    assert alias is not None
    assert alias.get("name") == "ua-net1"


def test_a_medium_is_changed_and_taken_out(machine: Machine) -> None:
    drive = live(machine).drive("/one.iso")
    assert drive is not None
    other = ET.fromstring(device.with_medium(drive, machine, "/two.iso"))
    assert [element.get("file") for element in other.findall("source")] == ["/two.iso"]
    assert ET.fromstring(device.with_medium(drive, machine, "")).find("source") is None
    # The drive itself is not touched.
    assert drive.find("source") is not None


def test_the_metadata_of_a_running_domain_say_how_far_it_was_changed(machine: Machine) -> None:
    root = domain.write(machine).root
    assert domain.read(ET.tostring(root, encoding="unicode")).applied == machine.digest
    text = metadata.live_text(machine, "a" * 64)
    assert text.startswith("<machine ")
    assert "vmctl:" not in text
    assert "<disk " in text


def test_free_ports_are_counted() -> None:
    ports = "".join(
        f"<controller type='pci' index='{index}' model='pcie-root-port'>"
        f"<address type='pci' bus='0x00' slot='0x01' function='{index}'/></controller>"
        for index in range(1, 5)
    )
    disk = "<disk><address type='pci' bus='0x02' slot='0x00'/></disk>"
    root = ET.fromstring(f"<domain><devices>{ports}{disk}</devices></domain>")
    assert controller.read_spare(root) == 3
    old = ET.fromstring(f"<domain><devices>{disk.replace('0x02', '0x00')}</devices></domain>")
    assert controller.read_spare(old) == 30
