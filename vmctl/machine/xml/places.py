"""Where devices of a machine hang, and how its disks are opened, when others decided that."""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ET

from vmctl.machine.xml import structure
from vmctl.machine.xml.element import Writer


def keep(written: Writer, there: str) -> None:
    """Put into a domain that is to be defined what libvirt would otherwise decide anew.

    A guest finds its cards under the addresses it knows, and its UEFI variables where they are.
    """
    wanted = written.root
    found = ET.fromstring(there)  # noqa: S314  (libvirt's own output; its parser refuses entities)
    devices, before = wanted.find("devices"), found.find("devices")
    if devices is None or before is None:
        return
    _keep_buses(devices, before)
    left = [element for element in before if not _is_bus(element)]
    for element in devices:
        twin = None if _is_bus(element) else structure.partner(element, left)
        if twin is not None:
            left.remove(twin)
            _keep_address(element, twin)
            _keep_opening(element, twin)
    variables, kept = wanted.find("os/nvram"), found.find("os/nvram")
    if variables is not None and kept is not None:
        variables.text = kept.text


def _is_bus(element: ET.Element) -> bool:
    return element.tag == "controller" and element.get("type") == "pci"


def _keep_buses(devices: ET.Element, there: ET.Element) -> None:
    """Take the buses over as they are: addresses name them by number."""
    buses = [copy.deepcopy(element) for element in there if _is_bus(element)]
    if not buses:
        return
    for element in [element for element in devices if _is_bus(element)]:
        devices.remove(element)
    devices.extend(buses)


def _keep_address(element: ET.Element, twin: ET.Element) -> None:
    address = twin.find("address")
    if address is not None and element.find("address") is None:
        element.append(copy.deepcopy(address))


def _keep_opening(element: ET.Element, twin: ET.Element) -> None:
    """Open a disk that was there before as it was opened before."""
    driver, before = element.find("driver"), twin.find("driver")
    own = element.find("serial") is not None
    if element.tag == "disk" and not own and driver is not None and before is not None:
        driver.attrib = {**before.attrib, **driver.attrib}
