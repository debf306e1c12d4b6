"""Who reaches whom: ports, greetings, and the networks that libvirt has."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pathlib
import socket
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site, definitions

GREETING = b"SSH-2.0-dropbear"
SLIRP_HOST = "10.0.2.2"
"""The host as a guest on user networking sees it."""
VIRTIO = "accel: tcg\ndevices: virtio\n"
AT_ONCE = VIRTIO + "ready: {when: running}\n"
"""A machine whose guest does not matter."""


def greeting(address: str, port: int, seconds: float = PATIENCE) -> bytes:
    """Return what the guest's ssh server says first; it may still be starting."""
    end = time.monotonic() + seconds
    while True:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((address, port), timeout=5) as client,
        ):
            said = client.recv(len(GREETING))
            if said:
                return said
        if time.monotonic() > end:
            return b""
        time.sleep(0.1)


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@contextlib.contextmanager
def taken_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[int]:
    """Hold a port as another program would."""
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            holder.listen()
        yield int(holder.getsockname()[1])


@contextlib.contextmanager
def greeter(address: str, text: str) -> Iterator[int]:
    """Say `text` to everyone who connects to an address of the host; yields the port."""
    with socket.create_server((address, 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        client.sendall(f"{text}\n".encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


def listening(port: int, protocol: str = "tcp") -> list[str]:
    """Return the addresses of this host on which somebody listens at a port."""
    found = []
    for version in ("", "6"):
        path = pathlib.Path(f"/proc/net/{protocol}{version}")
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            _, local, _, state, *_ = line.split()
            address, _, number = local.partition(":")
            # 0A is a listening TCP socket, 07 an unconnected UDP one.
            if int(number, 16) == port and state in ("0A", "07"):
                found.append(address if version else _dotted(address))
    return found


def _dotted(address: str) -> str:
    return str(ipaddress.IPv4Address(bytes.fromhex(address)[::-1]))


def heard(site: Site, name: str, address: str, port: int) -> str:
    """Return the first line that the guest hears from a TCP server."""
    return site.console(name, f"nc -w 10 {address} {port} < /dev/null | head -n 1 | tr -d '\\r'")


def down(site: Site, *names: str) -> None:
    site.run("down", "-y", *names)


def find_network(connection: libvirt.virConnect, name: str) -> libvirt.virNetwork | None:
    return next((net for net in connection.listAllNetworks() if net.name() == name), None)


def subnet_of(network: libvirt.virNetwork) -> ipaddress.IPv4Network:
    ip = ET.fromstring(network.XMLDesc()).find("ip")
    assert ip is not None
    size = ip.get("prefix") or ip.get("netmask")
    return ipaddress.IPv4Interface(f"{ip.get('address')}/{size}").network


def subnets_elsewhere(connection: libvirt.virConnect, besides: str) -> list[ipaddress.IPv4Network]:
    """Return the subnets of the host's routes and of libvirt's other networks."""
    table = subprocess.run(
        ["ip", "-4", "route", "show"], capture_output=True, text=True, check=True
    ).stdout
    own = ET.fromstring(connection.networkLookupByName(besides).XMLDesc()).find("bridge")
    assert own is not None
    found = [
        ipaddress.ip_network(line.split()[0])
        for line in table.splitlines()
        if line[0].isdigit() and f" dev {own.get('name')} " not in f"{line} "
    ]
    found += [
        subnet_of(network)
        for network in connection.listAllNetworks()
        if network.name() != besides and "<ip " in network.XMLDesc()
    ]
    return [network for network in found if isinstance(network, ipaddress.IPv4Network)]


def require_absent(connection: libvirt.virConnect, name: str) -> None:
    """Skip where somebody else has machines on this network; tests must have left none."""
    mine = f"-{os.getpid()}-"
    if any(
        f"network='{name}'" in xml and mine not in domain
        for domain, xml in definitions(connection).items()
    ):
        pytest.skip("other machines of this host are on vmctl's networks")
    assert find_network(connection, name) is None
