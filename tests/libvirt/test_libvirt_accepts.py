"""Libvirt takes what is written: its schema, its parser, its translation to QEMU's arguments."""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Iterator

import libvirt
import pytest

from tests.golden import test_golden_xml as golden
from vmctl import process
from vmctl.deadline import Deadline
from vmctl.hypervisor import failures
from vmctl.machine.model import Mode, NicKind
from vmctl.machine.xml import domain, network

DRIVER = """<node><cpu><mhz>2000</mhz><nodes>1</nodes><sockets>1</sockets>
<cores>4</cores><threads>1</threads><active>4</active></cpu><memory>33554432</memory></node>"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[libvirt.virConnect]:
    """Libvirt's in-process test driver, empty."""
    failures.quiet()
    node = tmp_path_factory.mktemp("driver") / "node.xml"
    node.write_text(DRIVER)
    connection = libvirt.open(f"test://{node}")
    yield connection
    connection.close()


@pytest.mark.parametrize(("template", "mode"), golden.cases())
def test_schema_and_define(driver: libvirt.virConnect, template: str, mode: Mode) -> None:
    for machine in golden.rendered(template, mode)[0]:
        text = domain.write(machine).text()
        defined = driver.defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        back = domain.read(defined.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        defined.undefine()
        assert back.owned
        # The test driver keeps neither chains nor everything else that QEMU's driver does;
        # fields that it keeps must come back as they were.
        assert (back.machine.name, back.machine.mode) == (machine.name, machine.mode)
        assert back.machine.memory == machine.memory
        assert back.machine.nics == machine.nics
        assert back.machine.forwards == machine.forwards
        assert back.digest == machine.digest


@pytest.mark.parametrize("kind", [NicKind.NAT, NicKind.ISOLATED])
def test_networks(driver: libvirt.virConnect, kind: NicKind) -> None:
    subnet = network.free_subnet([])
    assert subnet is not None
    defined = driver.networkDefineXMLFlags(
        network.write(kind, subnet).text(), libvirt.VIR_NETWORK_DEFINE_VALIDATE
    )
    assert network.read(defined.XMLDesc()) == (kind, subnet)
    defined.undefine()


@pytest.mark.parametrize("mode", list(Mode))
def test_qemu_arguments(tmp_path: pathlib.Path, mode: Mode, libvirt_daemon: str) -> None:
    """Where domxml-to-native says something: processor, devices; not networks."""
    file = tmp_path / "domain.xml"
    file.write_text(golden.rendered("disks", mode)[1])
    command = ["virsh", "-c", libvirt_daemon, "domxml-to-native", "qemu-argv", str(file)]
    argv = shlex.split(process.run(command, Deadline.after(60)).text)
    arguments = " ".join(argv)
    assert ("-accel kvm" in arguments) == (mode.accel == "kvm")
    cpu = argv[argv.index("-cpu") + 1]
    if mode is Mode.PARAVIRT:
        assert cpu.startswith("host,") and "kvm-pv-unhalt=on" in cpu and "kvm=off" not in cpu
    elif mode is Mode.HARDWARE:
        assert cpu.startswith("host,") and "kvm=off" in cpu and "kvmclock=off" in cpu
    else:
        assert cpu.startswith("max")
        assert "tb-size=256" in arguments
    assert ("virtio-blk" in arguments) == (mode.devices == "virtio")
    assert ("virtio-rng" in arguments) == (mode.devices == "virtio")
    assert ("ich9-ahci" in arguments or "ide-hd" in arguments) == (mode.devices == "emulated")
    assert "svm=off" in cpu or "vmx=off" in cpu
