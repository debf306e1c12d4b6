"""What a domain of others means as a spec, and what stays as it was when it is written anew."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from vmctl.machine import adoption, existing, meanings
from vmctl.machine.adoption import Finding
from vmctl.machine.xml import places, structure
from vmctl.machine.xml.element import Writer
from vmctl.spec.choices import DiskFormat
from vmctl.spec.model import DiskSpec

DOMAIN = """<domain type='{type}'><name>web</name><memory unit='KiB'>524288</memory>
<currentMemory unit='KiB'>262144</currentMemory><vcpu current='1'>2</vcpu>
<os><type arch='x86_64' machine='{machine}'>hvm</type><boot dev='cdrom'/><boot dev='hd'/></os>
<devices>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/srv/{file}'/>
<target dev='vda' bus='virtio'/></disk>
<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='/srv/a.iso'/>
<target dev='sda' bus='sata'/><readonly/></disk>
<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/>
<model type='virtio'/></interface>
<interface type='network'><mac address='52:54:00:00:00:02'/><source network='No Name!'/></interface>
</devices></domain>"""


def domain(**words: str) -> str:
    return DOMAIN.format(**{"type": "qemu", "machine": "pc-q35-7.2", "file": "a.img", **words})


def lines(text: str) -> list[str]:
    return adoption.spec(text, autostart=True).splitlines()


def test_what_a_spec_says_of_a_domain() -> None:
    assert lines(domain()) == [
        "name: web",
        "project: web",
        "accel: tcg",
        "devices: virtio",
        "cpus: 1",
        "cpus_max: 2",
        "memory: 256MiB",
        "memory_max: 512MiB",
        "disks:",
        '  - {name: vda, path: "/srv/a.img", format: raw}',
        'cdroms: ["/srv/a.iso"]',
        "boot_order: [cdrom, disk]",
        "networks:",
        '  - {kind: bridge, bridge: "br0", mac: "52:54:00:00:00:01"}',
        "autostart: true",
    ]


def test_an_older_mainboard_and_kvm() -> None:
    found = lines(domain(type="kvm", machine="pc-i440fx-7.2"))
    assert "mode: paravirt" in found and "chipset: pc" in found


@pytest.mark.parametrize(
    "file", ["../a.img", "x/../y", "./a", "a//b", "tab&#9;here", "nl&#10;here"]
)
def test_a_path_that_no_spec_can_say_is_left_out(file: str) -> None:
    assert not [line for line in lines(domain(file=file)) if line.startswith("  - {name")]


@pytest.mark.parametrize("file", ["it&apos;s", 'a "b"', "c: d", "é", "{x}", "#y"])
def test_odd_paths_are_quoted(file: str) -> None:
    import yaml

    spec = yaml.safe_load(adoption.spec(domain(file=file), autostart=False))
    assert spec["disks"][0]["path"] == f"/srv/{file.replace('&apos;', chr(39))}"


def test_comments_stay_comments() -> None:
    text = adoption.commented("name: web\n", [Finding("domain/title='a\nname: evil'", "text")])
    assert "a?name: evil" in text
    assert [line for line in text.splitlines() if not line.startswith("#")] == ["name: web"]


@pytest.mark.parametrize(
    ("path", "meaning"),
    [
        ("domain/devices/sound", "a sound card"),
        ("domain/devices/sound/codec/@type", "a sound card"),
        ("domain/nothing/known", "an element that vmctl has no key for"),
        ("domain/{http://libvirt.org/schemas/domain/qemu/1.0}commandline", "arguments and"),
        ("domain/{a/b}c/{a/b}d/@e", "arguments and"),
        ("domain/devices/{a}b", "an element that vmctl has no key for"),
    ],
)
def test_every_place_has_a_meaning(path: str, meaning: str) -> None:
    assert meanings.of(path).startswith(meaning)
    assert meanings.of(path, absent=True) != meanings.of(path)


def test_handles_are_no_difference() -> None:
    wanted = ET.fromstring(
        "<domain><devices><disk><driver name='qemu' type='raw'/><alias name='ua-disk-a'/></disk>"
        "<serial><log file='/x'/></serial></devices><seclabel/></domain>"
    )
    found = ET.fromstring(
        "<domain><devices><disk><driver name='qemu' type='raw' cache='none' io='native'/></disk>"
        "<serial/></devices></domain>"
    )
    assert structure.differing(wanted, found) == []
    other = ET.fromstring(ET.tostring(found).replace(b'type="raw"', b'type="qcow2"'))
    assert [one.present for one in structure.differing(wanted, other)] == [
        "domain/devices/disk/driver[@type='qcow2']"
    ]


def test_places_are_kept_when_a_domain_is_written_anew() -> None:
    out = Writer("domain")
    out.root.extend(
        ET.fromstring(
            "<d><os><nvram>/new</nvram></os><devices>"
            "<disk><driver name='qemu' type='raw'/><target dev='vda'/></disk>"
            "<disk><driver name='qemu' type='qcow2'/><target dev='vdb'/><serial>b</serial></disk>"
            "<controller type='pci' index='0'/><controller type='usb' model='none'/>"
            "<interface><mac address='1'/></interface></devices></d>"
        )
    )
    places.keep(
        out,
        "<domain><os><nvram>/old</nvram></os><devices>"
        "<disk><driver name='qemu' type='raw' cache='unsafe'/><target dev='vda'/>"
        "<address slot='9'/></disk>"
        "<disk><driver name='qemu' type='qcow2' cache='unsafe'/><target dev='vdb'/></disk>"
        "<controller type='pci' index='0'/><controller type='pci' index='1'/>"
        "<interface><mac address='2'/><address slot='3'/></interface>"
        "<interface><mac address='1'/><address slot='4'/></interface></devices></domain>",
    )
    root = out.root
    assert root.findtext("os/nvram") == "/old"
    one, two = root.findall("devices/disk")
    assert one.find("driver[@cache='unsafe']") is not None and one.find("address") is not None
    assert two.find("driver[@cache]") is None  # vmctl's own, which has a serial number
    assert len(root.findall("devices/controller[@type='pci']")) == 2
    assert root.find("devices/interface/address[@slot='4']") is not None


def test_disks_in_the_store_are_refused() -> None:
    def spec(path: str) -> DiskSpec:
        return DiskSpec(name="a", path=path, format=DiskFormat.RAW)

    disks = (spec("/store/images/x/disk.raw"), spec("/srv/a"), spec("/srv/a"))
    found = [(one[0], one[1]) for one in existing.objections(disks, "/store")]
    assert [location for location, _ in found] == [("disks", 0, "path"), ("disks", 2, "path")]
    assert "lies in the store" in found[0][1] and "two names" in found[1][1]
    assert existing.disk(spec("/srv/a")).external
