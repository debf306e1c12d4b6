"""Network cards."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Machine, Nic, NicKind
from vmctl.machine.xml import limits
from vmctl.machine.xml import network as network_xml
from vmctl.machine.xml.element import Writer, number
from vmctl.machine.xml.metadata import Metadata

ALIAS = "ua-net"
_RING = "1024"


def alias(index: int) -> str:
    """Return the alias of the n-th card; QEMU's netdev is then called host<alias>."""
    return f"{ALIAS}{index}"


def write(machine: Machine, out: Writer, devices: ET.Element) -> None:
    """Write each <interface>."""
    for index, nic in enumerate(machine.nics):
        kind = {NicKind.USER: "user", NicKind.BRIDGE: "bridge"}.get(nic.kind, "network")
        element = out.add(
            devices,
            "interface",
            type_=kind,
            why=f"spec networks: {nic.kind}; mode {machine.mode}: {nic.model}",
        )
        out.add(element, "mac", address=nic.mac)
        if nic.kind is NicKind.BRIDGE:
            out.add(element, "source", bridge=nic.bridge)
        elif kind == "network":
            out.add(element, "source", network=nic.network)
        out.add(element, "model", type_=nic.model)
        if nic.vhost:
            out.add(
                element,
                "driver",
                name="vhost",
                queues=str(nic.queues) if nic.queues > 1 else "",
                rx_queue_size=_RING,
                why="host: vhost-net moves packets in the kernel; queues only help with it",
            )
        limits.write_card(machine.limits, element, out)
        network_boot = "network" in machine.boot_order and index == 0
        if network_boot:
            position = machine.boot_order.index("network") + 1
            out.add(element, "boot", order=str(position), why="spec boot_order")
        else:
            out.add(
                element,
                "rom",
                enabled="no",
                why="always: no boot ROM unless the spec boots from the network",
            )
        out.add(element, "alias", name=alias(index), why="vmctl: forwards need to name the card")


def read(root: ET.Element, own: Metadata | None) -> tuple[Nic, ...]:
    """Return the network cards."""
    return tuple(
        _read_nic(element, own)
        for element in root.iterfind("devices/interface")
        if own is None or _ours(element, own)
    )


def _ours(element: ET.Element, own: Metadata) -> bool:
    """Tell a card of the machine from one that other hands plugged in."""
    alias, mac = element.find("alias"), element.find("mac")
    if alias is not None and alias.get("name", "").startswith("ua-net"):
        return True
    return bool(own.adopted) and mac is not None and mac.get("address", "") in own.nics


def _read_nic(element: ET.Element, own: Metadata | None) -> Nic:
    def attribute(path: str, name: str) -> str:
        child = element.find(path)
        return child.get(name, "") if child is not None else ""

    mac = attribute("mac", "address")
    declared = own.nics.get(mac) if own else None
    kind = _kind(element, attribute("source", "network"), declared)
    return Nic(
        kind=kind,
        mac=mac,
        model=attribute("model", "type"),
        network=attribute("source", "network"),
        bridge=attribute("source", "bridge") if kind is NicKind.BRIDGE else "",
        address=declared.get("address", "") if declared is not None else "",
        gateway=declared.get("gateway", "") if declared is not None else "",
        dns=tuple(declared.get("dns", "").split()) if declared is not None else (),
        vhost=attribute("driver", "name") == "vhost",
        queues=number(attribute("driver", "queues"), 1),
    )


def _kind(element: ET.Element, network: str, declared: ET.Element | None) -> NicKind:
    """Return what a card is plugged into; vmctl's own networks are known by their names."""
    kind = {"user": NicKind.USER, "bridge": NicKind.BRIDGE}.get(element.get("type", ""))
    if kind is not None:
        return kind
    if declared is not None and declared.get("kind") == NicKind.ISOLATED:
        return NicKind.ISOLATED
    names = {name: known for known, name in network_xml.NAMES.items()}
    return names.get(network, NicKind.NETWORK)
