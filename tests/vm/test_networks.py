"""vmctl's own networks with real traffic, and machines that need others.

The tiny guest answers on port 22 with dropbear's greeting, which is how it is known to be reached.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import libvirt
import pytest

from tests.vm.conftest import Site
from tests.vm.reaching import (
    AT_ONCE,
    GREETING,
    down,
    find_network,
    greeter,
    greeting,
    heard,
    require_absent,
    subnet_of,
    subnets_elsewhere,
)

pytestmark = pytest.mark.vm


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
