"""Networks of vmctl's own."""

from __future__ import annotations

import ipaddress
import xml.etree.ElementTree as ET
from collections.abc import Iterable

from vmctl.machine.model import NicKind
from vmctl.machine.xml.element import METADATA, Writer

NAMES = {NicKind.NAT: "vmctl-nat", NicKind.ISOLATED: "vmctl-isolated"}
"""The libvirt network behind each kind of card that needs one."""

_BRIDGES = {NicKind.NAT: "vmctl-nat0", NicKind.ISOLATED: "vmctl-iso0"}
_DOMAIN = "vm.internal"
_CANDIDATES = ipaddress.IPv4Network("192.168.0.0/16")
_FIRST = 150
_LEASES_FROM = 100


def write(kind: NicKind, subnet: ipaddress.IPv4Network) -> Writer:
    """Return the network of a kind on `subnet`: the host has .1, leases begin at .100."""
    out = Writer("network")
    out.add(out.root, "name", text=NAMES[kind])
    metadata = out.add(out.root, "metadata")
    out.add(metadata, f"{{{METADATA}}}network", kind=kind.value)
    if kind is NicKind.NAT:
        out.add(out.root, "forward", mode="nat")
    out.add(out.root, "bridge", name=_BRIDGES[kind], stp="on", delay="0")
    out.add(out.root, "domain", name=_DOMAIN, localOnly="yes")
    hosts = list(subnet.hosts())
    ip = out.add(out.root, "ip", address=str(hosts[0]), prefix=str(subnet.prefixlen))
    dhcp = out.add(ip, "dhcp")
    out.add(dhcp, "range", start=str(hosts[_LEASES_FROM - 1]), end=str(hosts[-1]))
    return out


def reservation(mac: str, name: str, address: str) -> str:
    """Return the <host> element that gives a card a fixed address."""
    host = ET.Element("host", {"mac": mac, "name": name, "ip": address})
    return ET.tostring(host, encoding="unicode")


def free_subnet(taken: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network | None:
    """Return a /24 that overlaps nothing in `taken`, or None."""
    used = [network for network in taken if network.prefixlen > 0]
    subnets = list(_CANDIDATES.subnets(new_prefix=24))
    for subnet in subnets[_FIRST:] + subnets[:_FIRST]:
        if not any(subnet.overlaps(network) for network in used):
            return subnet
    return None


def read(text: str) -> tuple[NicKind | None, ipaddress.IPv4Network | None]:
    """Return the kind of a network of ours (None for others) and its subnet."""
    root = ET.fromstring(text)  # noqa: S314  (libvirt's own output)
    own = root.find(f"metadata/{{{METADATA}}}network")
    ip = root.find("ip")
    subnet = None
    if ip is not None and ip.get("address") and ip.get("family", "ipv4") == "ipv4":
        size = ip.get("prefix") or ip.get("netmask") or "24"
        subnet = ipaddress.ip_network(f"{ip.get('address')}/{size}", strict=False)
    kind = NicKind(own.get("kind", "")) if own is not None else None
    return kind, subnet if isinstance(subnet, ipaddress.IPv4Network) else None
