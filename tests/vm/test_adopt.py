"""Domains of virsh and virt-install are taken over as they are, and let go of as they are."""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site
from tests.vm.killing import killed
from vmctl.images import catalog

MARK = "<vmctl:machine"

BY_HAND = """<domain type='qemu'>
  <name>{name}</name>
  <title>made by hand</title>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{place}/kernel</kernel>
    <initrd>{place}/initrd</initrd>
    <cmdline>console=ttyS0</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='writethrough'/>
      <source file='{place}/{name}.qcow2'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='user'>
      <mac address='52:54:00:aa:bb:cc'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'/>
    <sound model='ich9'/>
  </devices>
</domain>
"""

AS_VMCTL_WOULD = """
name: {name}
project: {name}
accel: tcg
devices: virtio
memory: 128MiB
disks: [{{name: vda, path: {place}/{name}.qcow2, format: qcow2}}]
networks: [{{kind: user, mac: '52:54:00:aa:bb:cd'}}, {{kind: user, mac: '52:54:00:aa:bb:ce'}}]
"""


@pytest.fixture(scope="module")
def place(site: Site) -> Iterator[pathlib.Path]:
    """A directory outside of the store with a kernel that boots in seconds."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="vmctl-foreign-", dir="/var/tmp"))
    directory.chmod(0o755)
    (kernel,) = site.home.glob(f"images/*/{catalog.KERNEL}")
    shutil.copy(kernel, directory / "kernel")
    shutil.copy(kernel.parent / catalog.INITRD, directory / "initrd")
    yield directory
    shutil.rmtree(directory)


class Foreign:
    """A domain that vmctl did not make, and its disk."""

    def __init__(self, connection: libvirt.virConnect, place: pathlib.Path, name: str) -> None:
        self.connection = connection
        self.place = place
        self.name = name
        self.disk = place / f"{name}.qcow2"
        self.spec = place / f"{name}.yaml"
        command = ["qemu-img", "create", "-q", "-f", "qcow2", str(self.disk), "16M"]
        subprocess.run(command, check=True)

    def define(self, text: str) -> None:
        self.connection.defineXML(text)

    @property
    def domain(self) -> libvirt.virDomain:
        return self.connection.lookupByName(self.name)

    def xml(self, *, live: bool = False) -> str:
        return str(self.domain.XMLDesc(0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE))

    def digest(self) -> str:
        return hashlib.sha256(self.disk.read_bytes()).hexdigest()


@pytest.fixture
def foreign(site: Site, guest_uri: libvirt.virConnect, place: pathlib.Path) -> Foreign:
    return Foreign(guest_uri, place, site.name("foreign"))


def by_hand(foreign: Foreign) -> None:
    foreign.define(BY_HAND.format(name=foreign.name, place=foreign.place))


def without_mark(text: str) -> str:
    """Return a domain's XML without vmctl's own element."""
    root = ET.fromstring(text)
    for block in root.findall("metadata"):
        for element in list(block):
            if "vmctl" in element.tag:
                block.remove(element)
        if not len(block):
            root.remove(block)
    return ET.canonicalize(ET.tostring(root, encoding="unicode"), strip_text=True)


def test_a_running_domain_of_virsh(site: Site, foreign: Foreign) -> None:
    by_hand(foreign)
    foreign.domain.create()
    number, before, live = foreign.domain.ID(), foreign.xml(), foreign.xml(live=True)

    said = site.run("adopt", foreign.name, "--spec", str(foreign.spec), status=7)
    assert "domain/os/kernel" in said.err and "domain/devices/sound (ich9)" in said.err
    assert "a kernel that QEMU loads itself" in said.err and "--partial" in said.err
    assert (foreign.xml(), foreign.xml(live=True)) == (before, live)
    assert not foreign.spec.exists() and not (site.home / "machines" / foreign.name).exists()

    site.run("adopt", foreign.name, "--spec", str(foreign.spec), "--partial")
    assert foreign.domain.ID() == number
    assert without_mark(foreign.xml()) == without_mark(before)
    assert without_mark(foreign.xml(live=True)) == without_mark(live)
    assert 'adopted="' in foreign.xml(live=True)
    state = site.status(foreign.name)
    assert state["state"] == "running" and state["machine"]["uuid"] == foreign.domain.UUIDString()
    assert any("domain/title" in each and "not managed" in each for each in state["drift"])
    assert foreign.name in [row["name"] for row in site.run("ps", "-a", "--json").json]

    # Neither the same spec nor a changed one overwrites what vmctl does not manage.
    adopted = foreign.xml()
    site.run("up", "--allow-outside", str(foreign.spec))
    assert foreign.xml() == adopted
    changed = foreign.spec.read_text().replace("memory: 128MiB", "memory: 192MiB")
    foreign.spec.write_text(changed)
    site.run("up", "--allow-outside", str(foreign.spec))
    assert without_mark(foreign.xml()) == without_mark(before)
    assert foreign.domain.ID() == number

    site.run("stop", "--force", foreign.name)
    content = foreign.digest()
    site.run("start", foreign.name)
    assert foreign.domain.isActive()
    site.run("stop", "--force", foreign.name)
    site.run("down", "-y", foreign.name)
    assert foreign.name not in [each.name() for each in foreign.connection.listAllDomains()]
    assert foreign.digest() == content and foreign.spec.exists()
    assert not (site.home / "machines" / foreign.name).exists()


def stripped(text: str) -> str:
    """Return a domain as others would have written it: without what only vmctl needs."""
    root = ET.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "alias", "log", "uuid"):
                parent.remove(child)
    return ET.tostring(root, encoding="unicode")


def addresses(text: str) -> dict[str, str]:
    """Return where each device of a domain hangs, by what tells it from the others."""
    found = {}
    for element in ET.fromstring(text).find("devices") or ():
        key = " ".join(
            part.get(name, "")
            for part in (element, *element)
            for name in ("type", "index", "dev", "address", "model")
            if part.tag in (element.tag, "target", "mac") and part.get(name)
        )
        for address in element.iterfind("address"):
            found[f"{element.tag} {key}"] = ET.tostring(address, encoding="unicode").strip()
    return found


def test_a_domain_that_a_spec_can_say_is_adopted_whole(site: Site, foreign: Foreign) -> None:
    own = foreign.place / "own.yaml"
    own.write_text(AS_VMCTL_WOULD.format(name=foreign.name, place=foreign.place))
    text = stripped(site.run("render", "--allow-outside", str(own)).out)
    # Others put the second card where they like, and open the disk as they like.
    foreign.define(text)
    moved = foreign.xml().replace("type='qcow2'", "type='qcow2' cache='unsafe'")
    moved = moved.replace("bus='0x01' slot='0x00'", "bus='0x07' slot='0x00'")
    foreign.define(moved)
    foreign.domain.setAutostart(1)
    before, where = foreign.xml(), addresses(foreign.xml())
    assert "bus='0x07'" in before

    dry = site.run("adopt", foreign.name, "--dry-run").out
    assert "more than this file can say" not in dry and "path:" in dry
    assert foreign.xml() == before
    site.run("adopt", foreign.name, "--spec", str(foreign.spec))
    assert without_mark(foreign.xml()) == without_mark(before)
    assert site.status(foreign.name)["drift"] == []
    site.run("adopt", foreign.name, "--spec", str(foreign.spec))  # again is fine

    site.run("up", "--allow-outside", str(foreign.spec))
    assert foreign.domain.isActive() and without_mark(foreign.xml()) == without_mark(before)
    site.run("stop", "--force", foreign.name)
    foreign.spec.write_text(f"{foreign.spec.read_text()}cpus_max: 3\n")
    site.run("up", "--allow-outside", str(foreign.spec))
    after = foreign.xml()
    assert "<vcpu placement='static' current='1'>3</vcpu>" in after
    assert {key: addresses(after)[key] for key in where} == where
    assert "cache='unsafe'" in after and foreign.domain.UUIDString() in after
    assert site.status(foreign.name)["drift"] == []

    # What changes while it runs finds the devices, although vmctl did not name them.
    foreign.spec.write_text(f"{foreign.spec.read_text()}description: changed\n")
    site.run("up", "--allow-outside", str(foreign.spec))
    assert "<description>changed<" in foreign.xml(live=True)
    assert {key: addresses(foreign.xml())[key] for key in where} == where
    site.run("stop", "--force", foreign.name)
    site.run("snapshot", "create", foreign.name, "before")
    site.run("snapshot", "restore", "-y", foreign.name, "before")
    assert site.status(foreign.name)["drift"] == []
    assert "not vmctl's own" in site.run("clone", foreign.name, f"{foreign.name}-c", status=2).err
    site.run("down", "-y", foreign.name)
    assert foreign.disk.exists()


def test_a_domain_of_virt_install(site: Site, foreign: Foreign) -> None:
    foreign.define(installed(foreign))
    before = foreign.xml()
    found = site.run("adopt", foreign.name, "--dry-run", "--json", status=7).json
    assert found["not_managed"] and not found["adopted"]
    places = [each["here"] for each in found["not_managed"]]
    assert places == sorted(places)
    site.run("adopt", foreign.name, "--spec", str(foreign.spec), "--partial")
    assert without_mark(foreign.xml()) == without_mark(before)
    assert "libosinfo" in foreign.xml() or "libosinfo" not in before
    site.run("start", foreign.name)
    site.run("stop", "--force", foreign.name)
    site.run("down", "-y", foreign.name)
    assert foreign.disk.exists()


def installed(foreign: Foreign) -> str:
    """Return what virt-install makes; where it is not installed, what it once printed."""
    program = shutil.which("virt-install")
    if program is None:
        recorded = pathlib.Path(__file__).parents[1] / "libvirt/foreign/virt-install-import.xml"
        text = recorded.read_text().replace("<name>web<", f"<name>{foreign.name}<")
        return text.replace("/var/lib/libvirt/images/disk.qcow2", str(foreign.disk))
    command = [program, "--connect", foreign.connection.getURI(), "--print-xml", "--import"]
    command += ["--name", foreign.name, "--memory", "128", "--virt-type", "qemu"]
    command += ["--osinfo", "debian11", "--graphics", "none", "--network", "user"]
    command += ["--disk", f"path={foreign.disk},format=qcow2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    return done.stdout


def test_a_machine_is_let_go_of_and_comes_back(
    site: Site, guest_uri: libvirt.virConnect, place: pathlib.Path
) -> None:
    path, name = site.spec(
        "mode: full\nready: {when: running}\ndisks: [{name: data, size: 16MiB}]\n"
    )
    site.run("up", path)
    domain = guest_uri.lookupByName(name)
    number, before = domain.ID(), without_mark(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    files = set((site.home / "machines" / name).iterdir())

    said = site.run("release", name).out
    assert str(site.home / "machines" / name / "data.qcow2") in said and "console.log" in said
    assert domain.ID() == number and domain.isActive()
    assert MARK not in domain.XMLDesc() + domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert without_mark(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)) == before
    assert name not in [row["name"] for row in site.run("ps", "-a", "--json").json]
    site.run("down", "-y", name, status=4)
    site.run("up", path, status=4)
    assert name not in [each["name"] for each in site.run("gc", "-n", "--json").json]
    site.run("gc", "-y", "--data", name)
    still = set((site.home / "machines" / name).iterdir())
    assert files - {site.home / "machines" / name / "machine.json"} <= still

    site.run("adopt", name)
    assert domain.ID() == number
    assert site.status(name)["drift"] == []
    assert set((site.home / "machines" / name).iterdir()) == files
    assert "nothing" in site.run("up", "--dry-run", path).out

    # Once its domain is gone, what it left is shown as data, and cleared only when told.
    site.run("release", name)
    domain.destroy()
    domain.undefine()
    site.run("up", path, status=4)
    (left,) = [each for each in site.run("gc", "-n", "--json").json if each["name"] == name]
    assert left["kind"] == "files of a released machine" and left["data"]
    site.run("gc", "-y", name)
    assert (site.home / "machines" / name / "data.qcow2").exists()
    site.run("gc", "-y", "--data", name)
    assert not (site.home / "machines" / name).exists()


def test_killed_anywhere_the_same_command_finishes(site: Site, foreign: Foreign) -> None:
    by_hand(foreign)
    before = without_mark(foreign.xml())
    words = ("adopt", foreign.name, "--partial", "--spec", str(foreign.spec))
    directory = site.home / "machines" / foreign.name
    deaths = 0
    for when in range(1, 60, 2):
        died = killed(site, when, "after" if when % 4 == 1 else "before", *words)
        deaths += died
        assert without_mark(foreign.xml()) == before
        site.run(*words)
        assert {path.name for path in directory.iterdir()} == {"machine.json", "spec.yaml"}
        assert MARK in foreign.xml()
        died = killed(site, when, "after", "release", foreign.name) or died
        if directory.joinpath("intent.json").exists() or MARK in foreign.xml():
            site.run("release", foreign.name)
        assert MARK not in foreign.xml() and without_mark(foreign.xml()) == before
        assert not directory.joinpath("intent.json").exists()
        shutil.rmtree(directory)
        foreign.spec.unlink()
        if not died:
            break
    assert deaths > 3


def test_gc_takes_back_what_a_killed_adopt_began(site: Site, foreign: Foreign) -> None:
    by_hand(foreign)
    before = without_mark(foreign.xml())
    words = ("adopt", foreign.name, "--partial", "--spec", str(foreign.spec))
    kinds = set()
    for when in range(1, 60, 2):
        if not killed(site, when, "after", *words):
            break
        left = {each["name"]: each["kind"] for each in site.run("gc", "-n", "--json").json}
        kinds.add(left.get(foreign.name, ""))
        site.run("gc", "-y", foreign.name)
        assert without_mark(foreign.xml()) == before
        whole = (site.home / "machines" / foreign.name / "machine.json").exists()
        assert whole == (MARK in foreign.xml())
    assert "half-adopted machine" in kinds
    site.run("down", "-y", foreign.name)
    assert foreign.disk.exists()


CHANGING = (
    ("start",),
    ("stop",),
    ("stop", "--force"),
    ("restart", "--force"),
    ("pause",),
    ("resume",),
    ("wait",),
    ("save",),
    ("down", "-y"),
    ("down", "-y", "--delete-kept"),
    ("release",),
    ("snapshot", "create", "{name}", "s"),
    ("snapshot", "restore", "-y", "{name}", "s"),
    ("snapshot", "delete", "-y", "{name}", "s"),
    ("clone", "{name}", "{name}-c"),
    ("commit", "{name}", "{name}-i"),
    ("exec", "{name}", "--", "true"),
    ("cp", "/etc/hostname", "{name}:/tmp/x"),
)


@pytest.mark.parametrize("running", [False, True], ids=["off", "running"])
def test_no_command_changes_a_domain_of_others(site: Site, foreign: Foreign, running: bool) -> None:
    by_hand(foreign)
    if running:
        foreign.domain.create()
    before = (foreign.xml(), foreign.xml(live=True), foreign.domain.ID(), foreign.domain.state())
    path, _ = site.spec("mode: full\n", foreign.name)
    commands = [
        tuple(word.format(name=foreign.name) for word in words)
        if len(words) > 1 and "{name}" in "".join(words)
        else (*words, foreign.name)
        for words in CHANGING
    ]
    commands += [("up", path), ("up", "--take-over", path), ("up", "--remove-orphans", "-y", path)]
    commands += [("down", "-y", path), ("stop", "--force", path)]
    for words in commands:
        said = site.run(*words, status=None)
        # Of exec, the guest's command has the low numbers.
        wanted = (125,) if words[0] == "exec" else (3, 4)
        assert said.status in wanted, f"{words}: {said}"
    site.run("gc", "-y", "--data", foreign.name)
    after = (foreign.xml(), foreign.xml(live=True), foreign.domain.ID(), foreign.domain.state())
    assert after == before
    assert foreign.disk.exists()
    assert not (site.home / "machines" / foreign.name).exists()


def test_what_cannot_be_adopted(site: Site, foreign: Foreign) -> None:
    site.run("adopt", foreign.name, status=3)
    text = BY_HAND.format(name=foreign.name, place=foreign.place)
    foreign.connection.createXML(text)  # transient
    assert "virsh define" in site.run("adopt", "--partial", foreign.name, status=4).err
    foreign.domain.destroy()
    odd = foreign.name.replace("-", "_")
    site.claim(odd)
    foreign.define(text.replace(f"<name>{foreign.name}<", f"<name>{odd}<"))
    assert "virsh domrename" in site.run("adopt", "--partial", odd, status=2).err
    by_hand_spec = foreign.place / "taken.yaml"
    by_hand_spec.write_text("something else\n")
    foreign.connection.lookupByName(odd).undefine()
    by_hand(foreign)
    words = ("adopt", foreign.name, "--partial", "--spec", str(by_hand_spec))
    assert "is there already" in site.run(*words, status=4).err
    assert by_hand_spec.read_text() == "something else\n" and MARK not in foreign.xml()


def test_a_disk_that_exists_is_looked_at_first(site: Site, foreign: Foreign) -> None:
    text = f"disks: [{{name: a, path: {foreign.disk}, format: qcow2}}]\n"
    path, name = site.spec(f"mode: full\n{text}")
    before = foreign.digest()
    site.run("up", path, status=2)  # outside of the spec's directory
    site.run("up", "--allow-outside", "--no-wait", path)
    assert str(foreign.disk) in site.run("status", name).out
    site.run("stop", "--force", name)
    site.run("down", "-y", "--delete-kept", name)
    assert foreign.digest() == before
    below = foreign.place / "below.qcow2"
    foreign.disk.rename(below)
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(below)]
    subprocess.run([*command, str(foreign.disk)], check=True)
    assert "refers to another file" in site.run("up", "--allow-outside", path, status=7).err
    foreign.disk.unlink()
    assert "No such file" in site.run("up", "--allow-outside", path, status=3).err
    assert not (site.home / "machines" / name).exists()
