"""The rules that need more than one key, or more than one machine, to be seen to be broken."""

from __future__ import annotations

import graphlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from vmctl import sizes
from vmctl.spec import guest_rules, limit_rules, problems
from vmctl.spec.choices import NetworkKind, ReadyWhen
from vmctl.spec.model import MOST_MACHINES, DiskSpec, ForwardSpec, MachineSpec, NetworkSpec
from vmctl.spec.objection import Objection

BOOT_WORDS = ("disk", "cdrom", "network")
"""What may stand in `boot_order` besides the names of disks; no disk is called so."""

_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  (compared, not listened on)
_UNUSABLE_ADDRESS = re.compile(r"(0|127|22[4-9]|2[3-5][0-9])\..*|.*\.(0|255)")


def machine(spec: MachineSpec) -> Iterator[Objection]:
    """Yield every rule that one machine breaks."""
    for rule in _RULES:
        yield from rule(spec)


def _mode(spec: MachineSpec) -> Iterator[Objection]:
    meaning = spec.mode.meaning
    if meaning is None:
        return
    accel, devices = meaning
    mode = f"mode '{spec.mode}', which means accel '{accel}' and devices '{devices}'"
    if spec.accel not in (None, accel):
        hint = "leave out 'mode' or 'accel'"
        yield Objection(("accel",), f"accel '{spec.accel}' contradicts {mode}", hint)
    if spec.devices not in (None, devices):
        hint = "leave out 'mode' or 'devices'"
        yield Objection(("devices",), f"devices '{spec.devices}' contradicts {mode}", hint)


def _room(spec: MachineSpec) -> Iterator[Objection]:
    if spec.cpus_max is not None and spec.cpus_max < spec.cpus:
        message = f"cpus_max is {spec.cpus_max}, less than cpus, which is {spec.cpus}"
        yield Objection(("cpus_max",), message)
    if spec.memory_max is not None and spec.memory_max < spec.memory:
        message = (
            f"memory_max is {sizes.text(spec.memory_max)}, "
            f"less than memory, which is {sizes.text(spec.memory)}"
        )
        yield Objection(("memory_max",), message)


def _image(spec: MachineSpec) -> Iterator[Objection]:
    image = spec.image
    if image is None:
        existing = any(disk.path for disk in spec.disks)
        starts = spec.disk is not None or spec.cdroms or existing
        if not starts and "network" not in spec.boot_order:
            message = "there is nothing to start from"
            yield Objection((), message, "write 'image: tiny', or give 'cdroms' or a 'disk'")
        return
    kinds = [kind for kind in ("name", "path", "url") if getattr(image, kind)]
    if len(kinds) > 1:
        message = f"image has a {kinds[0]} and a {kinds[1]}"
        yield Objection(("image", kinds[1]), message, "leave out one of them")
    elif not kinds:
        yield Objection(("image",), "image has neither a name nor a path nor a url")
    elif image.name and image.format is not None:
        message = "image has a name and a format; the image itself knows its format"
        yield Objection(("image", "format"), message, "leave out 'format'")
    elif not image.name and image.format is None:
        message = f"image has a {kinds[0]} and no format; a format is never guessed"
        yield Objection(("image",), message, "add 'format: qcow2' or 'format: raw'")
    if image.sha256 and "url" not in kinds:
        message = "image has a sha256 and no url"
        yield Objection(("image", "sha256"), message, "leave out 'sha256'")
    elif image.url and not image.sha256:
        message = "image has a url and no sha256, which says what must be there"
        hint = "take it from the publisher, or let 'vmctl image pull URL' print it"
        yield Objection(("image",), message, hint)


def _disks(spec: MachineSpec) -> Iterator[Objection]:
    seen: set[str] = set()
    for number, disk in enumerate(spec.disks):
        location = ("disks", number, "name")
        if disk.name in seen:
            yield Objection(location, f"there are two disks named '{disk.name}'")
        if disk.name in BOOT_WORDS or disk.name == "root":
            yield Objection(location, f"a disk cannot be named '{disk.name}'")
        seen.add(disk.name)
        yield from _disk(number, disk)


def _disk(number: int, disk: DiskSpec) -> Iterator[Objection]:
    """Yield what does not go together in one disk: it is made, or it exists."""
    location = ("disks", number)
    if not disk.path:
        if disk.size is None:
            message = f"disk '{disk.name}' has neither a size nor a path"
            yield Objection(location, message, "add 'size: 10GiB'")
        if disk.format is not None:
            message = "format stands beside a path; vmctl's own disks are qcow2"
            yield Objection((*location, "format"), message, "leave it out")
        return
    if disk.format is None:
        message = f"disk '{disk.name}' has a path and no format; a format is never guessed"
        yield Objection(location, message, "add 'format: qcow2' or 'format: raw'")
    for key in ("size", "keep"):
        if getattr(disk, key):
            message = f"{key} is for disks of vmctl's own; one with a path stays as it is"
            yield Objection((*location, key), message, f"leave out '{key}'")


def _boot_order(spec: MachineSpec) -> Iterator[Objection]:
    known = [*BOOT_WORDS, *(disk.name for disk in spec.disks)]
    seen: set[str] = set()
    for number, word in enumerate(spec.boot_order):
        location = ("boot_order", number)
        if word not in known:
            yield Objection(location, f"boot_order can hold {', '.join(known)}; got '{word}'")
        elif word in seen:
            yield Objection(location, f"'{word}' stands twice in boot_order")
        elif word == "cdrom" and not spec.cdroms:
            yield Objection(location, "boot_order has 'cdrom', and there are no cdroms")
        elif word == "disk" and not (spec.image or spec.disk or spec.cdroms or _leads(spec)):
            yield Objection(location, "boot_order has 'disk', and there is neither image nor disk")
        elif word == "network" and not spec.networks:
            yield Objection(location, "boot_order has 'network', and there are no networks")
        seen.add(word)


def _leads(spec: MachineSpec) -> bool:
    """Tell whether a disk that exists takes the place of the root disk."""
    return bool(spec.disks and spec.disks[0].path)


def _networks(spec: MachineSpec) -> Iterator[Objection]:
    for number, network in enumerate(spec.networks):
        named = network.kind is NetworkKind.NETWORK
        if named and not network.network:
            message = "a network of kind 'network' needs the name that libvirt knows it by"
            yield Objection(("networks", number), message, "add 'network: default'")
        if network.network and not named:
            message = f"network is set, and the network's kind is '{network.kind}'"
            yield Objection(("networks", number, "network"), message, "write 'kind: network'")
        bridged = network.kind is NetworkKind.BRIDGE
        if bridged and not network.bridge:
            message = "a network of kind 'bridge' needs the name of the host's bridge"
            yield Objection(("networks", number), message, "add 'bridge: br0'")
        if network.bridge and not bridged:
            message = f"bridge is set, and the network's kind is '{network.kind}'"
            yield Objection(("networks", number, "bridge"), message, "write 'kind: bridge'")
        if network.address:
            yield from _address(number, network)
        yield from _static(number, network)


def _address(number: int, network: NetworkSpec) -> Iterator[Objection]:
    location = ("networks", number, "address")
    if network.kind is NetworkKind.USER:
        # QEMU lends its first address, and libvirt (9.0) passes on no more than the subnet.
        message = "every guest on a network of kind 'user' has the address 10.0.2.15, in a network "
        message += "of its own that nothing else is in"
        hint = "reach it through 'forwards', or write 'kind: nat' for an address of its own"
        yield Objection(location, message, hint)
        return
    if network.kind is NetworkKind.NETWORK:
        message = f"address on a network of kind '{network.kind}' is not supported yet"
        yield Objection(location, message)
        return
    bare, slash, _prefix = network.address.partition("/")
    if _UNUSABLE_ADDRESS.fullmatch(bare):
        yield Objection(location, f"address '{network.address}' cannot be that of a machine")
    elif network.kind is NetworkKind.BRIDGE and not slash:
        message = "address on a bridge needs the prefix of its network"
        yield Objection(location, message, f"write '{bare}/24'")
    elif network.kind is not NetworkKind.BRIDGE and slash:
        message = f"address has a prefix, and vmctl's own '{network.kind}' network has its own"
        yield Objection(location, message, f"write '{bare}'")


def _static(number: int, network: NetworkSpec) -> Iterator[Objection]:
    """Yield what only stands beside a fixed address on a bridge."""
    fixed = network.kind is NetworkKind.BRIDGE and network.address
    for key, written in (("gateway", network.gateway), ("dns", network.dns)):
        if written and not fixed:
            message = f"{key} stands beside a fixed address on a network of kind 'bridge' only"
            yield Objection(("networks", number, key), message)


def _forwards(spec: MachineSpec) -> Iterator[Objection]:
    kinds = {network.kind for network in spec.networks}
    if spec.forwards and NetworkKind.USER not in kinds:
        message = "forwards need a network of kind 'user', and there is none"
        yield Objection(("forwards",), message, "add '- {kind: user}' to networks")


def _ready(spec: MachineSpec) -> Iterator[Objection]:
    ready = spec.ready
    if ready is None or not ready.pattern:
        return
    if ready.when not in (None, ReadyWhen.CONSOLE):
        message = f"ready has a pattern, and 'when: {ready.when}' looks for none"
        yield Objection(("ready", "pattern"), message, "write 'when: console'")


_RULES: tuple[Callable[[MachineSpec], Iterable[Objection]], ...] = (
    _mode,
    _room,
    _image,
    _disks,
    _boot_order,
    _networks,
    _forwards,
    _ready,
    *guest_rules.RULES,
    *limit_rules.RULES,
)


def together(machines: Sequence[MachineSpec]) -> Iterator[tuple[str, Objection]]:
    """Yield every rule that machines of one file break together, with the machine to show."""
    yield from _macs(machines)
    yield from _ports(machines)


def _macs(machines: Sequence[MachineSpec]) -> Iterator[tuple[str, Objection]]:
    owners: dict[str, str] = {}
    for spec in machines:
        for number, network in enumerate(spec.networks):
            if network.mac and network.mac in owners:
                message = f"mac '{network.mac}' is also that of {_who(owners[network.mac], spec)}"
                yield spec.name, Objection(("networks", number, "mac"), message)
            elif network.mac:
                owners[network.mac] = spec.name


def _ports(machines: Sequence[MachineSpec]) -> Iterator[tuple[str, Objection]]:
    owners: dict[tuple[str, int], dict[str, str]] = {}
    for spec in machines:
        for number, forward in enumerate(spec.forwards):
            taken = owners.setdefault((forward.protocol, forward.host), {})
            rival = _rival(forward, taken)
            if rival:
                message = f"host port {forward.host} is also forwarded by {_who(rival, spec)}"
                yield spec.name, Objection(("forwards", number, "host"), message)
            else:
                taken[forward.host_address] = spec.name


def _rival(forward: ForwardSpec, taken: Mapping[str, str]) -> str:
    """Return the machine that listens on the same port; the address 0.0.0.0 covers all others."""
    if forward.host_address == _EVERY_ADDRESS:
        return next(iter(taken.values()), "")
    return taken.get(forward.host_address) or taken.get(_EVERY_ADDRESS, "")


def _who(owner: str, spec: MachineSpec) -> str:
    return "this machine" if owner == spec.name else f"machine '{owner}'"


def needs(
    machines: Sequence[MachineSpec], groups: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Objection]]:
    """Yield every need for a machine that is not there, and the circle of needs if there is one.

    `groups` says which machines a name of the file stands for.
    """
    for spec in machines:
        for number, wanted in enumerate(spec.needs):
            location = ("needs", number)
            if wanted not in groups:
                message = f"needs '{wanted}', and there is no such machine in the file"
                yield spec.name, Objection(location, message)
            elif spec.name in groups[wanted]:
                message = f"needs '{wanted}', which is the machine itself"
                yield spec.name, Objection(location, message)
    circle = _circle(machines, groups)
    if circle:
        message = f"the machines need each other in a circle: {' → '.join(circle[:10])}"
        yield circle[0], Objection(("needs",), message)


def _circle(machines: Sequence[MachineSpec], groups: Mapping[str, Sequence[str]]) -> list[str]:
    graph: dict[str, set[str]] = {}
    for spec in machines:
        wanted = {name for group in spec.needs for name in groups.get(group, ())}
        graph[spec.name] = wanted - {spec.name}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]
    return []


def numbered(spec: MachineSpec) -> list[str]:
    """Return the names of the machines that a spec stands for."""
    if spec.count is None:
        return [spec.name]
    return [f"{spec.name}-{number}" for number in range(1, spec.count + 1)]


def names(specs: Sequence[MachineSpec]) -> Iterator[tuple[str, Objection]]:
    """Yield the names that become too long by their number, or that two machines would have."""
    owners: dict[str, str] = {}
    total = sum(spec.count or 1 for spec in specs)
    if total > MOST_MACHINES:
        message = f"the file makes {total} machines; at most {MOST_MACHINES} are possible"
        yield specs[0].name, Objection((), message)
        return
    for spec in specs:
        made = numbered(spec)
        if len(made[-1]) > 63:
            message = f"name {problems.quoted(made[-1])} has more than 63 characters"
            yield spec.name, Objection(("count",), message)
        for name in made:
            if name in owners:
                message = f"'{owners[name]}' and '{spec.name}' both make a machine named '{name}'"
                yield spec.name, Objection(("count",), message)
                break
            owners[name] = spec.name
