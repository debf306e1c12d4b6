"""Networks with real traffic: forwarded ports, vmctl's own networks, and machines that need others.

The tiny guest answers on port 22 with dropbear's greeting, which is how it is known to be reached.
"""

from __future__ import annotations

import contextlib
import dataclasses
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

pytestmark = pytest.mark.vm

GREETING = b"SSH-2.0-dropbear"
SLIRP_HOST = "10.0.2.2"
"""The host as a guest on user networking sees it."""
VIRTIO = "accel: tcg\ndevices: virtio\n"
AT_ONCE = VIRTIO + "ready: {when: running}\n"
"""A machine whose guest does not matter."""


# --- reaching and being reached ---------------------------------------------------------------


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


# --- networks of vmctl's own ------------------------------------------------------------------


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


@pytest.mark.parametrize("kind", ["nat", "isolated"])
def test_network_of_others_is_refused_and_left_alone(
    site: Site, guest_uri: libvirt.virConnect, kind: str
) -> None:
    require_absent(guest_uri, f"vmctl-{kind}")
    foreign = guest_uri.networkDefineXML(
        f"<network><name>vmctl-{kind}</name><bridge name='t-foreign'/></network>"
    )
    try:
        before = foreign.XMLDesc()
        path, name = site.spec(f"{AT_ONCE}networks: [{{kind: {kind}}}]\n")
        result = site.run("up", path, status=4)
        assert f"'vmctl-{kind}' exists that vmctl did not make" in " ".join(result.err.split())
        assert foreign.XMLDesc() == before
        assert not foreign.isActive()
        assert not (site.home / "machines" / name).exists()
        assert name not in [domain.name() for domain in guest_uri.listAllDomains()]
    finally:
        foreign.undefine()


@pytest.mark.parametrize("kind", ["nat", "isolated"])
def test_network_lives_as_long_as_machines_use_it(
    site: Site, guest_uri: libvirt.virConnect, kind: str
) -> None:
    network_name = f"vmctl-{kind}"
    require_absent(guest_uri, network_name)
    first, one = site.spec(f"{AT_ONCE}networks: [{{kind: {kind}}}]\n")
    second, other = site.spec(f"{AT_ONCE}networks: [{{kind: {kind}}}]\n")
    site.run("up", first)
    network = find_network(guest_uri, network_name)
    assert network is not None and network.isActive()
    subnet = subnet_of(network)
    assert not [
        taken for taken in subnets_elsewhere(guest_uri, network_name) if taken.overlaps(subnet)
    ]
    site.run("up", second)
    down(site, one)
    assert find_network(guest_uri, network_name) is not None
    site.run("stop", "--force", other)
    network.destroy()
    site.run("start", other)
    assert network.isActive()
    assert site.status(other)["state"] == "running"
    # What vmctl lost is made again: the network belongs to it, not to the machine.
    site.run("stop", "--force", other)
    network.destroy()
    network.undefine()
    site.run("up", second)
    down(site, second)
    assert find_network(guest_uri, network_name) is None


def test_down_of_several_at_once_leaves_no_network(
    site: Site, guest_uri: libvirt.virConnect
) -> None:
    require_absent(guest_uri, "vmctl-isolated")
    names = [site.name("many") for _ in range(4)]
    path = site.specs / f"{names[0]}.yaml"
    path.write_text(
        f"project: {names[0]}\ndefaults: {{image: tiny, memory: 128MiB, accel: tcg, "
        "devices: virtio, ready: {when: running}, networks: [{kind: isolated}]}\nvms:\n"
        + "".join(f"  {name}: {{}}\n" for name in names)
    )
    site.run("up", str(path))
    down(site, str(path))
    assert find_network(guest_uri, "vmctl-isolated") is None


# --- user networking --------------------------------------------------------------------------


@dataclasses.dataclass
class Forwarded:
    """A machine whose second card is on user networking, with forwarded ports."""

    name: str
    path: pathlib.Path
    tcp: int
    udp: int

    def write(self, *more: str) -> None:
        forwards = [
            f"{{host: {self.tcp}, guest: 22}}",
            f"{{host: {self.udp}, guest: 5000, protocol: udp}}",
            *more,
        ]
        self.path.write_text(
            f"name: {self.name}\nproject: {self.name}\nimage: tiny\nmemory: 128MiB\n{VIRTIO}"
            "networks: [{kind: isolated}, {kind: user}]\n"
            f"forwards: [{', '.join(forwards)}]\n"
        )


@pytest.fixture(scope="module")
def forwarded(site: Site) -> Iterator[Forwarded]:
    name = site.name("fwd")
    machine = Forwarded(
        name, site.specs / f"{name}.yaml", free_port(), free_port(socket.SOCK_DGRAM)
    )
    machine.write()
    site.run("up", str(machine.path))
    yield machine
    down(site, name)


def test_forwarded_port_leads_to_the_guest(site: Site, forwarded: Forwarded) -> None:
    assert greeting("127.0.0.1", forwarded.tcp) == GREETING
    assert f"127.0.0.1:{forwarded.tcp} -> 22/tcp" in site.status(forwarded.name)["forwards"]


def test_forwarded_ports_are_open_on_loopback_alone(forwarded: Forwarded) -> None:
    assert listening(forwarded.tcp) == ["127.0.0.1"]
    assert listening(forwarded.udp, "udp") == ["127.0.0.1"]


def test_udp_reaches_the_guest(site: Site, forwarded: Forwarded) -> None:
    """Nothing listens there, so that the guest's kernel counts what arrived (NoPorts)."""

    def count() -> int:
        return int(site.console(forwarded.name, "grep ^Udp: /proc/net/snmp | tail -1").split()[2])

    before = count()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(3):
            client.sendto(b"hello", ("127.0.0.1", forwarded.udp))
    end = time.monotonic() + PATIENCE
    while (after := count()) == before and time.monotonic() < end:
        pass
    assert before < after <= before + 3


def test_guest_reaches_a_server_of_the_host(site: Site, forwarded: Forwarded) -> None:
    with greeter("127.0.0.1", "from the host") as port:
        assert heard(site, forwarded.name, SLIRP_HOST, port) == "from the host"


def test_up_changes_forwards_of_a_running_guest(
    site: Site, forwarded: Forwarded, guest_uri: libvirt.virConnect
) -> None:
    run = guest_uri.lookupByName(forwarded.name).ID()
    more = free_port()
    forwarded.write(f"{{host: {more}, guest: 22}}")
    site.run("up", str(forwarded.path))
    assert greeting("127.0.0.1", more) == GREETING
    assert greeting("127.0.0.1", forwarded.tcp) == GREETING
    forwarded.write()
    site.run("up", str(forwarded.path))
    assert refused(more)
    assert greeting("127.0.0.1", forwarded.tcp) == GREETING
    assert guest_uri.lookupByName(forwarded.name).ID() == run
    assert site.status(forwarded.name)["drift"] == []


def test_adding_a_taken_port_to_a_running_guest_is_refused(
    site: Site, forwarded: Forwarded
) -> None:
    with taken_port() as port:
        forwarded.write(f"{{host: {port}, guest: 22}}")
        result = site.run("up", str(forwarded.path), status=4)
        assert str(port) in result.err
        assert greeting("127.0.0.1", forwarded.tcp) == GREETING
    site.run("up", str(forwarded.path))
    assert greeting("127.0.0.1", port) == GREETING
    forwarded.write()
    site.run("up", str(forwarded.path))
    assert refused(port)


def test_restart_forwards_again(site: Site, forwarded: Forwarded) -> None:
    site.run("restart", "--force", forwarded.name)
    assert greeting("127.0.0.1", forwarded.tcp) == GREETING
    assert listening(forwarded.udp, "udp") == ["127.0.0.1"]


def test_up_forwards_again_what_others_started(
    site: Site, forwarded: Forwarded, guest_uri: libvirt.virConnect
) -> None:
    domain = guest_uri.lookupByName(forwarded.name)
    domain.destroy()
    domain.create()
    assert site.status(forwarded.name)["forwards"] == []
    site.run("up", str(forwarded.path))
    assert greeting("127.0.0.1", forwarded.tcp) == GREETING
    assert len(site.status(forwarded.name)["forwards"]) == 2


@pytest.mark.parametrize(
    ("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)]
)
def test_taken_port_is_refused_before_anything_exists(
    site: Site, guest_uri: libvirt.virConnect, protocol: str, kind: socket.SocketKind
) -> None:
    with taken_port(kind) as port:
        path, name = site.spec(
            f"{AT_ONCE}forwards: [{{host: {port}, guest: 22, protocol: {protocol}}}]\n"
        )
        result = site.run("up", path, status=4)
        assert f"port {port} of 127.0.0.1 ({protocol})" in " ".join(result.err.split())
        assert f"sport = :{port}" in result.err
        assert not (site.home / "machines" / name).exists()
        assert name not in [domain.name() for domain in guest_uri.listAllDomains()]
    site.run("up", path)
    site.run("stop", "--force", name)
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", port))
        if protocol == "tcp":
            holder.listen()
        assert str(port) in site.run("start", name, status=4).err
        assert site.status(name)["state"] == "stopped"
    down(site, name)


# --- machines on one network ------------------------------------------------------------------


@dataclasses.dataclass
class Pair:
    """`web` needs `db`; both are on one network, where `web` has a fixed address."""

    kind: str
    path: str
    db: str
    web: str
    fixed: str
    gateway: str
    err: str
    """What `up` said while it brought them up."""

    def address(self, site: Site, name: str) -> str:
        (address,) = site.status(name)["addresses"]
        assert isinstance(address, str)
        return address


@pytest.fixture(scope="module", params=["nat", "isolated"])
def pair(site: Site, request: pytest.FixtureRequest, libvirt_daemon: str) -> Iterator[Pair]:
    kind = request.param
    anchor_path, anchor = site.spec(f"{AT_ONCE}networks: [{{kind: {kind}}}]\n")
    site.run("up", anchor_path)
    connection = libvirt.open(libvirt_daemon)
    subnet = subnet_of(connection.networkLookupByName(f"vmctl-{kind}"))
    connection.close()
    # Below the addresses that are lent, and another one in each run of the tests.
    gateway, fixed = str(subnet[1]), str(subnet[2 + os.getpid() % 90])
    db, web = site.name("db"), site.name("web")
    path = site.specs / f"{db}.yaml"
    # The one that comes first in the file is the one that starts last.
    path.write_text(
        f"project: {db}\n"
        "defaults: {image: tiny, memory: 128MiB, accel: tcg, devices: virtio}\n"
        f"vms:\n  {web}:\n    needs: [{db}]\n"
        f"    networks: [{{kind: {kind}, address: {fixed}}}]\n"
        f"  {db}:\n    networks: [{{kind: {kind}}}]\n"
    )
    result = site.run("up", str(path))
    down(site, anchor)
    yield Pair(kind, str(path), db, web, fixed, gateway, result.err)
    down(site, str(path))


def ended_steps(err: str) -> list[tuple[str, str]]:
    """Return machine and step of every line of progress, in the order in which they ended."""
    lines = [line.split() for line in err.splitlines()]
    return [(words[1], words[2]) for words in lines if len(words) > 2]


def test_machine_starts_when_those_it_needs_are_ready(pair: Pair) -> None:
    steps = ended_steps(pair.err)
    ready = steps.index((pair.db, "ready"))
    assert all(machine == pair.db for machine, _ in steps[:ready])
    assert (pair.web, "ready") in steps[ready:]


def test_machines_have_addresses(site: Site, pair: Pair) -> None:
    address = pair.address(site, pair.db)
    assert address.rpartition(".")[0] == pair.gateway.rpartition(".")[0]
    assert pair.address(site, pair.web) == pair.fixed
    assert pair.fixed in site.console(pair.web, "ip -4 address show dev eth0")
    assert f"address:     {address}" in site.run("status", pair.db).out


def test_host_reaches_the_guests(site: Site, pair: Pair) -> None:
    assert greeting(pair.address(site, pair.db), 22) == GREETING
    assert greeting(pair.fixed, 22) == GREETING


def test_guest_reaches_the_host(site: Site, pair: Pair) -> None:
    with greeter(pair.gateway, "over the bridge") as port:
        assert heard(site, pair.db, pair.gateway, port) == "over the bridge"
    assert "1 packets received" in site.console(pair.web, f"ping -c 1 -W 10 {pair.gateway}")


def test_guests_reach_each_other(site: Site, pair: Pair) -> None:
    assert heard(site, pair.db, pair.fixed, 22).startswith(GREETING.decode())
    db = pair.address(site, pair.db)
    assert heard(site, pair.web, db, 22).startswith(GREETING.decode())


def test_guests_know_each_other_by_name(site: Site, pair: Pair) -> None:
    for one, other in ((pair.web, pair.db), (pair.db, pair.web)):
        assert heard(site, one, other, 22).startswith(GREETING.decode())
        assert f"{other}.vm.internal" in site.console(one, f"nslookup {other}.vm.internal")


def test_only_nat_leads_outside(site: Site, pair: Pair) -> None:
    routes = site.console(pair.db, "ip route | grep ^default")
    # An address for documentation (RFC 5737), which nobody has.
    outside = site.console(pair.db, "ping -c 1 -W 1 203.0.113.1 2>&1")
    if pair.kind == "nat":
        assert f"via {pair.gateway}" in routes
        assert "unreachable" not in outside
    else:
        assert routes == ""
        assert "Network is unreachable" in outside


def test_address_of_another_network_is_refused(site: Site, pair: Pair) -> None:
    path, name = site.spec(f"{AT_ONCE}networks: [{{kind: {pair.kind}, address: 198.51.100.7}}]\n")
    result = site.run("up", path, status=2)
    assert "198.51.100.7" in result.err
    assert pair.gateway.rpartition(".")[0] in result.err
    assert not (site.home / "machines" / name).exists()


def test_address_of_another_machine_is_refused(
    site: Site, pair: Pair, guest_uri: libvirt.virConnect
) -> None:
    path, name = site.spec(f"{AT_ONCE}networks: [{{kind: {pair.kind}, address: {pair.fixed}}}]\n")
    result = site.run("up", path, status=4)
    assert pair.fixed in result.err
    assert not (site.home / "machines" / name).exists()
    network = guest_uri.networkLookupByName(f"vmctl-{pair.kind}")
    assert f"ip='{pair.fixed}'" in network.XMLDesc()


def test_address_that_left_the_spec_is_freed_as_well(
    site: Site, pair: Pair, guest_uri: libvirt.virConnect
) -> None:
    mine = pair.gateway.rpartition(".")[0] + f".{2 + (os.getpid() + 1) % 90}"
    path, name = site.spec(f"{AT_ONCE}networks: [{{kind: {pair.kind}, address: {mine}}}]\n")
    site.run("up", path)
    network = guest_uri.networkLookupByName(f"vmctl-{pair.kind}")
    assert f"name='{name}' ip='{mine}'" in network.XMLDesc()
    site.spec(f"{AT_ONCE}networks: [{{kind: {pair.kind}}}]\n", name)
    site.run("up", path)
    down(site, name)
    assert f"ip='{mine}'" not in network.XMLDesc()


def test_down_goes_the_other_way_and_frees_the_address(
    site: Site, pair: Pair, guest_uri: libvirt.virConnect
) -> None:
    """The last test of the pair: it removes it."""
    result = site.run("down", "-y", pair.path)
    assert ended_steps(result.err) == [(pair.web, "remove"), (pair.db, "remove")]
    network = find_network(guest_uri, f"vmctl-{pair.kind}")
    assert network is None or f"ip='{pair.fixed}'" not in network.XMLDesc()
