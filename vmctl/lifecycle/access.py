"""The way into a machine: where its ssh server is, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence

from vmctl import errors
from vmctl.deadline import TCG_PATIENCE
from vmctl.guest.ssh import Access
from vmctl.hypervisor import domains, networks
from vmctl.hypervisor.connection import Connection
from vmctl.lifecycle import observe, removal
from vmctl.machine.model import Accel, Machine, Nic, NicKind
from vmctl.machine.observed import Observed
from vmctl.machine.state import State
from vmctl.store import records
from vmctl.store.layout import Layout
from vmctl.store.records import Record

__all__ = ["Access", "find", "find_all", "running", "without_network"]

_LOOPBACK = "127.0.0.1"
_SSH_PORT = 22
_OWN_NETWORKS = (NicKind.NAT, NicKind.ISOLATED)


def find(connection: Connection, layout: Layout, name: str) -> Access:
    """Return how a running machine is reached over ssh.

    Raises NotFoundError for no such machine, ConflictError for one that does not run, UsageError
    for one that no ssh can reach (no network, an image without ssh), WaitTimeoutError for one that
    has no address yet.
    """
    observed, machine = running(connection, layout, name)
    place = layout.machine(name)
    record = records.read(place)
    user = machine.user or (record.user if record else "")
    if without_network(machine):
        raise errors.UsageError(
            f"Machine '{name}' has no network (networks: []), so that ssh cannot reach it.",
            hint=f"Use its console: vmctl console {name}; or its guest agent: "
            f"vmctl exec --agent {name} -- COMMAND",
        )
    if not user:
        image = machine.image.name if machine.image else "none"
        raise errors.UsageError(
            f"Machine '{name}' has no ssh login that vmctl knows of: its image '{image}' takes no "
            "key from vmctl.",
            hint=f"Use its console: vmctl console {name}; an image that has its own ssh server is "
            "reached with user: and ssh_keys: in the spec, where it has cloud-init.",
        )
    host, port = _place(connection, machine, record)
    return Access(
        name=name,
        host=host,
        port=port,
        user=user,
        key=place.ssh_key,
        known_hosts=place.known_hosts,
        alias=f"vmctl-{name}",
        pinned=place.host_key.exists(),
        run=run_of(connection, observed, record),
        patience=TCG_PATIENCE if machine.accel is Accel.TCG else 1,
    )


def find_all(
    connection: Connection, layout: Layout, names: Sequence[str]
) -> tuple[list[Access], list[errors.VmctlError]]:
    """Return how machines are reached, and why others are not; no name means every machine."""
    found, refused = [], []
    known = (each.name for each in records.every(layout) if each.uri == connection.uri)
    for name in dict.fromkeys(names or known):
        try:
            found.append(find(connection, layout, name))
        except errors.VmctlError as problem:
            refused.append(problem)
    return found, refused


def running(connection: Connection, layout: Layout, name: str) -> tuple[Observed, Machine]:
    """Return a machine as it runs; raises NotFoundError, ConflictError where it does not."""
    observed = observe.observe(connection, layout, name)
    removal.refuse_foreign(observed)
    if observed.running is None or observed.state is not State.RUNNING:
        verb = "resume" if observed.state is State.PAUSED else "start"
        failed = observed.state in (State.CRASHED, State.FAILED)
        raise errors.ConflictError(
            f"Machine '{name}' is {observed.state}: nobody answers inside.",
            hint=f"See what it wrote: vmctl logs {name}; then: vmctl stop --force {name}"
            if failed
            else f"Let it run: vmctl {verb} {name}",
        )
    return observed, observed.running


def without_network(machine: Machine) -> bool:
    """True for a machine with no network card at all."""
    return not machine.nics


def run_of(connection: Connection, observed: Observed, record: Record | None) -> str:
    """Name this run of the machine: its domain, and libvirt's number of the run."""
    number = domains.get(connection, observed.name).ID()
    uuid = observed.current.machine.uuid if observed.current else ""
    return f"{uuid}-{number}-{record.boot_offset if record else 0}"


def _place(connection: Connection, machine: Machine, record: Record | None) -> tuple[str, int]:
    """Return the address and the port of the guest's ssh server, as this host reaches it."""
    for nic in machine.nics:
        if nic.kind is NicKind.USER and record is not None and record.ssh_port:
            return _LOOPBACK, record.ssh_port
    forwarded = [each for each in machine.forwards if each.guest == _SSH_PORT]
    if forwarded and any(nic.kind is NicKind.USER for nic in machine.nics):
        return _reachable(forwarded[0].host_address), forwarded[0].host
    for nic in machine.nics:
        address = _address(connection, nic)
        if address:
            return address, _SSH_PORT
    return _nowhere(machine)


def _reachable(address: str) -> str:
    """Return the address to connect to where somebody listens on `address`."""
    return _LOOPBACK if address == "0.0.0.0" else address  # noqa: S104  (compared only)


def _address(connection: Connection, nic: Nic) -> str:
    if nic.address:
        return nic.address.partition("/")[0]
    if nic.kind in _OWN_NETWORKS:
        return networks.leases(connection, nic.network).get(nic.mac, "")
    return ""


def _nowhere(machine: Machine) -> tuple[str, int]:
    name = machine.name
    if any(nic.kind in _OWN_NETWORKS for nic in machine.nics):
        raise errors.WaitTimeoutError(
            f"Machine '{name}' has no address yet: its network has not lent it one.",
            hint=f"Wait until it is ready: vmctl wait {name}; see what it does: vmctl logs {name}",
        )
    if any(nic.kind is NicKind.USER for nic in machine.nics):
        raise errors.ConflictError(
            f"No port of this host leads to the ssh server of machine '{name}'.",
            hint=f"vmctl sets one up at each start: vmctl restart {name}",
        )
    raise errors.UsageError(
        f"The address of machine '{name}' on bridge '{machine.nics[0].bridge}' is not known: "
        "another DHCP server lent it.",
        hint=f"Give it a fixed one in the spec (address:), or look: vmctl console {name}",
    )
