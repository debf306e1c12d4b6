"""Networks of vmctl's own, made when a machine wants one."""

from __future__ import annotations

import contextlib
import ipaddress
import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import libvirt

from vmctl import errors
from vmctl.hypervisor import failures
from vmctl.hypervisor.connection import Connection, in_turn
from vmctl.machine.model import Nic, NicKind
from vmctl.machine.xml import network as network_xml

_ROUTES = pathlib.Path("/proc/net/route")
_GONE = {libvirt.VIR_ERR_NO_NETWORK, libvirt.VIR_ERR_OPERATION_INVALID}


_TRIES = 3


def ensure(connection: Connection, kind: NicKind) -> None:
    """Define the network of a kind on a free subnet unless it is there, and start it.

    Raises ConflictError for a network of that name which is not ours, HostError when libvirt
    cannot start it.
    """
    with failures.translated(f"make network '{network_xml.NAMES[kind]}'"):
        for _ in range(_TRIES):
            try:
                _ensure(connection, kind)
                return
            except libvirt.libvirtError as problem:
                # A vmctl with another store, and so with another lock, has just removed it.
                if failures.code(problem) != libvirt.VIR_ERR_NO_NETWORK:
                    raise
        _ensure(connection, kind)


def _ensure(connection: Connection, kind: NicKind) -> None:
    name = network_xml.NAMES[kind]
    network = _find(connection, name) or _define(connection, kind)
    if network_xml.read(network.XMLDesc())[0] is not kind:
        raise errors.ConflictError(
            f"A libvirt network '{name}' exists that vmctl did not make; it is left alone.",
            hint=f"Rename or remove it: virsh net-edit {name}",
        )
    _start(network, name)


def _define(connection: Connection, kind: NicKind) -> libvirt.virNetwork:
    subnet = network_xml.free_subnet(_taken(connection))
    if subnet is None:
        raise errors.HostError(
            "No subnet of 192.168.0.0/16 is free for a network of vmctl's own.",
            hint="See what is in use: ip route; virsh net-list --all",
        )
    try:
        return connection.handle.networkDefineXML(network_xml.write(kind, subnet).text())
    except libvirt.libvirtError:
        # A vmctl with another store, and so with another lock, was faster.
        network = _find(connection, network_xml.NAMES[kind])
        if network is None:
            raise
        return network


def _start(network: libvirt.virNetwork, name: str) -> None:
    if network.isActive():
        return
    try:
        network.create()
    except libvirt.libvirtError as problem:
        if failures.code(problem) == libvirt.VIR_ERR_NO_NETWORK:
            raise
        if network.isActive():
            return
        raise errors.HostError(
            f"Network '{name}' cannot be started: {problem.get_error_message()}.",
            hint="It needs dnsmasq, iptables (or nft) and the bridge module: vmctl doctor checks "
            "them. Machines on kind: user do without.",
        ) from None


def reserve(connection: Connection, nic: Nic, name: str) -> None:
    """Give a card its fixed address in the network's DHCP server."""
    network = _find(connection, nic.network)
    if network is None:
        return
    _, subnet = network_xml.read(network.XMLDesc())
    if subnet is None or ipaddress.IPv4Address(nic.address) not in subnet:
        raise errors.UsageError(
            f"Address {nic.address} of machine '{name}' is not in network '{nic.network}', "
            f"which has {subnet}.",
            hint=f"Take one of {subnet}, or leave address: out.",
        )
    _refuse_reserved(network, nic, name)
    present = _reservation(network, "mac", nic.mac) is not None
    command = (
        libvirt.VIR_NETWORK_UPDATE_COMMAND_MODIFY
        if present
        else libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST
    )
    with failures.translated(f"reserve address {nic.address} for machine '{name}'"):
        _update(network, command, network_xml.reservation(nic.mac, name, nic.address))


def _refuse_reserved(network: libvirt.virNetwork, nic: Nic, name: str) -> None:
    holder = _reservation(network, "ip", nic.address)
    if holder is not None and holder.get("mac") != nic.mac:
        other = holder.get("name") or holder.get("mac")
        raise errors.ConflictError(
            f"Address {nic.address} of machine '{name}' is reserved for '{other}' "
            f"in network '{nic.network}'.",
            hint="Take another address, or leave address: out.",
        )


def release(connection: Connection, nic: Nic) -> None:
    """Take back a card's fixed address, also one that its spec no longer has; fine if none."""
    network = _find(connection, nic.network) if nic.network else None
    if network is None:
        return
    with contextlib.suppress(libvirt.libvirtError):
        entry = _reservation(network, "mac", nic.mac)
        if entry is not None:
            text = ET.tostring(entry, encoding="unicode")
            _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, text)


def _reservation(network: libvirt.virNetwork, key: str, value: str) -> ET.Element | None:
    root = ET.fromstring(network.XMLDesc())  # noqa: S314  (libvirt's own output)
    return root.find(f"ip/dhcp/host[@{key}='{value}']")


def _update(network: libvirt.virNetwork, command: int, entry: str) -> None:
    flags = libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
    if network.isActive():
        flags |= libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE
    network.update(command, libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST, -1, entry, flags)


def unused(connection: Connection, name: str) -> bool:
    """Tell whether there is a network of ours that no guest is plugged into."""
    network = _find(connection, name)
    if network is None:
        return False
    with failures.translated(f"look at network '{name}'"):
        return not (network.isActive() and network.listAllPorts())


def remove_unused(connection: Connection, name: str) -> None:
    """Stop and undefine a network of ours that no guest is plugged into; fine if it is gone."""
    network = _find(connection, name)
    if network is None:
        return
    with _unless_gone(f"remove network '{name}'"):
        if network_xml.read(network.XMLDesc())[0] is None:
            return
        if network.isActive():
            if network.listAllPorts():
                return
            with _unless_gone(f"stop network '{name}'"):
                network.destroy()
        network.undefine()


@contextlib.contextmanager
def _unless_gone(doing: str) -> Iterator[None]:
    """Take it as success that another vmctl stopped or removed the network meanwhile."""
    try:
        yield
    except libvirt.libvirtError as problem:
        if failures.code(problem) not in _GONE:
            raise failures.translate(problem, doing) from None


@in_turn
def leases(connection: Connection, network_name: str) -> dict[str, str]:
    """Return the IPv4 addresses that a network has lent, by MAC."""
    network = _find(connection, network_name)
    if network is None:
        return {}
    try:
        return {
            str(lease["mac"]): str(lease["ipaddr"])
            for lease in network.DHCPLeases()
            if lease.get("type") == libvirt.VIR_IP_ADDR_TYPE_IPV4
        }
    except libvirt.libvirtError:
        return {}


def _find(connection: Connection, name: str) -> libvirt.virNetwork | None:
    try:
        return connection.handle.networkLookupByName(name)
    except libvirt.libvirtError as problem:
        if failures.code(problem) == libvirt.VIR_ERR_NO_NETWORK:
            return None
        raise failures.translate(problem, f"look for network '{name}'") from None


def _taken(connection: Connection) -> list[ipaddress.IPv4Network]:
    """Return the subnets in use: routes of this host and all of libvirt's networks."""
    found = _routes(_ROUTES.read_text() if _ROUTES.exists() else "")
    for network in connection.handle.listAllNetworks():
        _, subnet = network_xml.read(network.XMLDesc())
        if subnet is not None:
            found.append(subnet)
    return found


def _routes(table: str) -> list[ipaddress.IPv4Network]:
    """Read /proc/net/route: addresses and masks are hexadecimal, in the host's byte order."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7:
            address = int.from_bytes(bytes.fromhex(fields[1]), "little")
            mask = int.from_bytes(bytes.fromhex(fields[7]), "little")
            found.append(ipaddress.IPv4Network((address, mask.bit_count()), strict=False))
    return found
