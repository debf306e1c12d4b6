"""Domains that others made: every one is read, and what a spec cannot say of it is named.

`foreign/` holds what virt-install 4.1 prints, and domains as vagrant-libvirt, kcli and people write
them. VMCTL_REGENERATE=1 rewrites the specs beside them.
"""

from __future__ import annotations

import gzip
import pathlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest

from tests import replay
from tests.golden import test_golden_xml as golden
from vmctl import errors
from vmctl.machine import adoption
from vmctl.machine.adoption import Finding
from vmctl.machine.model import Machine, Mode
from vmctl.machine.xml import domain, metadata

FOREIGN = pathlib.Path(__file__).parent / "foreign"
FILES = sorted(FOREIGN.glob("*.xml"))
SHIPPED = ("/usr/share/doc", "/usr/share/libvirt", "/usr/share/virt-manager", "/usr/lib/ruby")
"""Where packages put examples of domains."""
NO_MACHINES = {"arm", "container"}
NOTHING_TO_START = {"hand-written", "virt-install-kernel"}


def shipped() -> Iterator[tuple[pathlib.Path, str]]:
    """Yield every XML of a domain that this machine's packages brought along."""
    for root in map(pathlib.Path, SHIPPED):
        for path in (*root.rglob("*.xml"), *root.rglob("*.xml.gz")):
            if path.is_file():
                raw = path.read_bytes()
                text = gzip.decompress(raw) if path.suffix == ".gz" else raw
                yield from ((path, each) for each in domains_in(text.decode("utf-8", "replace")))


def domains_in(text: str) -> Iterator[str]:
    """Yield the domains of a file, those inside snapshots included; templates are no XML."""
    try:
        root = ET.fromstring(text)
    except ET.ParseError:
        return
    for element in root.iter("domain"):
        if element.find("name") is not None:
            yield ET.tostring(element, encoding="unicode")


def test_every_shipped_example_is_read() -> None:
    for path, text in shipped():
        readable(text, str(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_foreign_domain_is_read(path: pathlib.Path) -> None:
    readable(path.read_text(), path.name)


def readable(text: str, where: str) -> None:
    back = domain.read(text)
    assert not back.owned, where
    assert back.machine.name, where
    try:
        adoption.refuse_impossible(text)
        adoption.spec(text, autostart=False)
    except errors.VmctlError:
        pass


@pytest.mark.parametrize("garbled", ["many", "", "-1", "1.5", "0x10", "9" * 40, " 2 ", "\u0663"])
def test_numbers_that_are_none_do_not_stop_the_reader(garbled: str) -> None:
    text = (FOREIGN / "virt-install-import.xml").read_text()
    for pattern in (r"(?<=<memory>)\d+", r"(?<=<vcpu>)\d+", r"(?<=<currentMemory>)\d+"):
        domain.read(re.sub(pattern, garbled, text))
    domain.read(text.replace('<model type="virtio"/>', f'<driver queues="{garbled}"/>'))


def proposed(text: str, tmp_path: pathlib.Path) -> tuple[str, Machine]:
    mode = Mode.PARAVIRT if ET.fromstring(text).get("type") == "kvm" else Mode.FULL
    spec = adoption.spec(text, autostart=False)
    file = tmp_path / "spec.yaml"
    file.write_text(spec)
    (machine,) = replay.machines(file, replay.surroundings(golden.host_for(mode)))
    return spec, machine


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.stem not in NO_MACHINES | NOTHING_TO_START],
    ids=lambda path: path.stem,
)
def test_the_spec_of_a_foreign_domain(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    text = path.read_text()
    adoption.refuse_impossible(text)
    spec, machine = proposed(text, tmp_path)
    found = adoption.findings(machine, text)
    assert list(found) == sorted(found, key=lambda one: one.here)
    assert all(one.here.startswith("domain") and one.meaning for one in found)
    beside = path.with_suffix(".yaml")
    written = adoption.commented(spec, found)
    if golden.REGENERATE:
        beside.write_text(written)
    assert written == beside.read_text()


@pytest.mark.parametrize("name", sorted(NO_MACHINES))
def test_what_is_no_machine_of_qemu(name: str) -> None:
    with pytest.raises(errors.ConflictError, match="no x86-64 machine"):
        adoption.refuse_impossible((FOREIGN / f"{name}.xml").read_text())


@pytest.mark.parametrize("name", sorted(NOTHING_TO_START))
def test_what_a_spec_could_start_nothing_from(name: str) -> None:
    text = (FOREIGN / f"{name}.xml").read_text()
    adoption.refuse_impossible(text)
    with pytest.raises(errors.ConflictError, match="could start"):
        adoption.spec(text, autostart=False)


@pytest.mark.parametrize("name", ["My VM", "web_1", "WEB", "-x", "a" * 64, "12", ""])
def test_a_name_that_no_machine_can_have(name: str) -> None:
    text = (FOREIGN / "virt-install-import.xml").read_text()
    with pytest.raises(errors.UsageError, match="cannot name a machine"):
        adoption.refuse_impossible(text.replace("<name>web<", f"<name>{name}<"))


OWN = """
name: web
project: web
{mode}
cpus: 2
memory: 512MiB
disks:
  - {{name: {first}, path: /srv/web.qcow2, format: qcow2}}
  - {{name: {second}, path: /dev/vg/data, format: raw}}
cdroms: [/srv/install.iso]
networks:
  - {{kind: nat, mac: '52:54:00:00:00:01'}}
  - {{kind: network, network: default, mac: '52:54:00:00:00:02'}}
  - {{kind: bridge, bridge: br0, mac: '52:54:00:00:00:03'}}
boot_order: [cdrom, disk]
firmware: {firmware}
description: 'with "quotes" and a: colon'
"""


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
@pytest.mark.parametrize("mode", list(Mode))
def test_a_domain_as_vmctl_would_write_it_has_nothing_else(
    mode: Mode, firmware: str, tmp_path: pathlib.Path
) -> None:
    text = OWN.format(
        mode="\n".join(golden.settings(mode)).replace("=", ": "),
        first="vda" if mode.devices == "virtio" else "sda",
        second="vdb" if mode.devices == "virtio" else "sdb",
        firmware=firmware,
    )
    file = tmp_path / "own.yaml"
    file.write_text(text)
    around = replay.surroundings(golden.host_for(mode))
    (machine,) = replay.machines(file, around)
    foreign = stripped(domain.write(machine).text())
    again = tmp_path / "again.yaml"
    again.write_text(adoption.spec(foreign, autostart=False))
    (second,) = replay.machines(again, around)
    assert second == machine
    assert adoption.findings(second, foreign) == ()


def stripped(text: str) -> str:
    """Return a domain as somebody else would have written it: without vmctl's own handles."""
    root = ET.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "alias", "log") or (
                child.tag == "seclabel" and parent.tag == "source"
            ):
                parent.remove(child)
    return ET.tostring(root, encoding="unicode")


def adopted(text: str, tmp_path: pathlib.Path) -> tuple[str, Machine]:
    """Return a domain with our element, as `adopt` leaves it, and the machine of its spec."""
    import dataclasses

    _, machine = proposed(text, tmp_path)
    root = ET.fromstring(text)
    block = root.find("metadata")
    block = ET.SubElement(root, "metadata") if block is None else block
    own = dataclasses.replace(machine, adopted=True)
    block.append(domain.write(own).root.find("metadata")[0])  # type: ignore[index]
    return ET.tostring(root, encoding="unicode"), own


def test_an_adopted_domain_is_read_as_the_machine_of_its_spec(tmp_path: pathlib.Path) -> None:
    text, machine = adopted((FOREIGN / "virt-install-import.xml").read_text(), tmp_path)
    back = domain.read(text)
    assert back.owned and back.machine.adopted
    assert back.machine == machine
    assert back.digest == back.machine.digest == machine.digest
    assert back.missing == ()
    assert "domain/devices/panic (isa, absent)" in back.unknown
    assert metadata.present(text).startswith("<machine ")


def test_a_console_log_of_others_is_not_the_stores(tmp_path: pathlib.Path) -> None:
    text = (FOREIGN / "virt-install-import.xml").read_text()
    text, machine = adopted(
        text.replace("<serial type='pty'>", "<serial type='pty'><log file='/l'/>"), tmp_path
    )
    back = domain.read(text)
    assert back.machine.console_log == machine.console_log
    assert "domain/devices/serial/log[@file='/l']" in back.unknown


def test_a_disk_that_is_plugged_in_later_is_not_the_machines(tmp_path: pathlib.Path) -> None:
    text, machine = adopted((FOREIGN / "virt-install-import.xml").read_text(), tmp_path)
    more = "<disk type='file' device='disk'><source file='/x'/><target dev='vdz' bus='virtio'/>"
    back = domain.read(text.replace("<devices>", f"<devices>{more}</disk>"))
    assert back.machine.disks == machine.disks
    assert any("/x" in path for path in back.unknown)


def test_a_finding_says_what_and_why() -> None:
    assert str(Finding("domain/clock", "timers")) == "domain/clock: timers"
