"""Single devices of a running domain: found in it, and written for it."""

from __future__ import annotations

import copy
import itertools
import string
import xml.etree.ElementTree as ET

from vmctl.machine.model import Machine
from vmctl.machine.xml import disk as disk_xml
from vmctl.machine.xml import domain as domain_xml
from vmctl.machine.xml import interface


class Live:
    """A running domain's XML, asked for devices by what they are."""

    def __init__(self, xml: str) -> None:
        self.root = ET.fromstring(xml)  # noqa: S314  (libvirt's own output)

    def disk(self, name: str) -> ET.Element | None:
        """Return the disk of a name."""
        return _disk(self.root, name)

    def target(self, name: str) -> str:
        """Return libvirt's name of a disk (vda), or nothing."""
        element = self.disk(name)
        target = element.find("target") if element is not None else None
        return target.get("dev", "") if target is not None else ""

    def card(self, mac: str) -> ET.Element | None:
        """Return the network card with a MAC."""
        return _card(self.root, mac)

    @property
    def user_card(self) -> str:
        """The alias of the machine's first card on user networking, or nothing."""
        paths = self.root.iterfind("devices/interface[@type='user']/alias")
        names = [element.get("name", "") for element in paths]
        own = [name for name in names if name.startswith(interface.ALIAS)]
        return next(iter([*own, *names]), "")

    def drive(self, file: str) -> ET.Element | None:
        """Return the first CD-ROM drive with this medium; nothing is that of an empty one."""
        for element in self.root.iterfind("devices/disk[@device='cdrom']"):
            alias = element.find("alias")
            seed = alias is not None and alias.get("name") == disk_xml.SEED
            if not seed and disk_xml.source_of(element) == file:
                return element
        return None

    @property
    def has_io_thread(self) -> bool:
        """True where disks can have a thread of their own."""
        return (self.root.findtext("iothreads") or "0").strip() != "0"

    def _attributes(self, path: str, name: str) -> set[str]:
        return {element.get(name, "") for element in self.root.iterfind(path)}

    def new_disk(self, machine: Machine, name: str) -> str:
        """Return the XML of a disk of `machine` that can be plugged in here."""
        element = _disk(_written(machine), name)
        assert element is not None
        target = element.find("target")
        assert target is not None
        taken = self._attributes("devices/disk/target", "dev")
        if target.get("dev") in taken:
            letters = string.ascii_lowercase
            names = ("".join(word) for n in (1, 2) for word in itertools.product(letters, repeat=n))
            prefix = target.get("dev", "")[:2]
            target.set("dev", next(prefix + word for word in names if prefix + word not in taken))
        return text(element)

    def new_card(self, machine: Machine, mac: str) -> str:
        """Return the XML of a network card of `machine` that can be plugged in here."""
        element = _card(_written(machine), mac)
        assert element is not None
        alias = element.find("alias")
        assert alias is not None
        taken = self._attributes("devices/*/alias", "name")
        if alias.get("name") in taken:
            free = (interface.alias(index) for index in itertools.count())
            alias.set("name", next(name for name in free if name not in taken))
        return text(element)


def text(element: ET.Element) -> str:
    """Return a device as libvirt takes it."""
    return ET.tostring(element, encoding="unicode")


def with_medium(drive: ET.Element, machine: Machine, file: str) -> str:
    """Return the XML of a running domain's CD-ROM drive with another medium, or with none."""
    element = copy.deepcopy(drive)
    for tag in ("source", "backingStore"):
        for child in element.findall(tag):
            element.remove(child)
    if file:
        source = ET.SubElement(element, "source", file=file)
        if not machine.qemu_owner:
            ET.SubElement(source, "seclabel", model="dac", relabel="no")
    return text(element)


def _written(machine: Machine) -> ET.Element:
    return domain_xml.write(machine).root


def _disk(root: ET.Element, name: str) -> ET.Element | None:
    for element in root.iterfind("devices/disk[@device='disk']"):
        alias = element.find("alias")
        seed = alias is not None and alias.get("name") == disk_xml.SEED
        if not seed and disk_xml.name_of(element) == name:
            return element
    return None


def _card(root: ET.Element, mac: str) -> ET.Element | None:
    for element in root.iterfind("devices/interface"):
        address = element.find("mac")
        if address is not None and address.get("address") == mac:
            return element
    return None
