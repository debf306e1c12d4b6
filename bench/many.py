"""What `ps` and an `up` without a change cost with many machines, and how that grows."""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterator, Sequence

from bench import population
from bench.crowd import Crowd
from bench.rounds import Contender, Group, Round
from bench.site import Site

METRICS = ("wall_seconds", "cpu_seconds")
SLOPE = "for a hundred machines more_seconds"
_HUNDRED = 100
_LEAST = 1e-4
"""Where noise makes a line fall."""

PS = "vmctl ps --all --json"
UP = "vmctl up, no change"
LIST = "virsh list --all"
STATS = "virsh domstats"
EACH = "libvirt-python, machine by machine"
BULK = "libvirt-python, in bulk"

_BULK = """
import libvirt
for domain, numbers in libvirt.open(None).getAllDomainStats():
    print(domain.name(), domain.UUIDString(), numbers["state.state"])
"""
_EACH = """
import libvirt
for domain in libvirt.open(None).listAllDomains():
    domain.info(), domain.state(), domain.isPersistent(), domain.autostart()
    print(domain.name(), domain.UUIDString(), len(domain.XMLDesc()))
"""
_EACH_OF_SPEC = """
import sys, libvirt
connection = libvirt.open(None)
for name in sys.argv[1:]:
    domain = connection.lookupByName(name)
    domain.state(), domain.autostart()
    print(name, len(domain.XMLDesc()), len(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
"""
NOTES = {
    PS: "",
    LIST: "names, numbers and states only",
    STATS: "everything that it gives of each machine",
    BULK: "one bulk call: state, CPU, memory, disks and cards of all",
    EACH: "a handful of calls for each machine, as a plain loop has them",
}
UP_NOTES = {
    UP: "",
    "virsh, machine by machine": "a virsh for each machine: dumpxml, and dumpxml --inactive",
    EACH: "one connection; what `up` must know of each machine: state, autostart, both XMLs",
}


@contextlib.contextmanager
def populated(site: Site, crowd: Crowd, sizes: Sequence[int]) -> Iterator[Iterator[int]]:
    """Have the crowd running and others defined beside it; yields each population's size.

    The populations grow from one to the next, and go all at once in the end.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(crowd.up())

        def growing() -> Iterator[int]:
            there = crowd.count
            for size in sizes:
                stack.enter_context(
                    population.defined(site, max(0, size - there), stem=f"many{size}")
                )
                there = max(there, size)
                yield there

        yield growing()


def listing(site: Site, crowd: Crowd, size: int) -> tuple[Group, list[Contender]]:
    """Return the contenders of `ps` with so many machines there."""
    virsh = ("virsh", "-c", site.uri)
    commands = {
        PS: [*site.vmctl, "ps", "--all", "--json"],
        LIST: [*virsh, "list", "--all"],
        STATS: [*virsh, "domstats"],
        BULK: [sys.executable, "-c", _BULK],
        EACH: [sys.executable, "-c", _EACH],
    }
    title = f"A list of {size} machines, {crowd.count} of them running"
    return Group(title, LIST, METRICS, NOTES, subject=PS), _contenders(site, commands)


def unchanged(site: Site, crowd: Crowd, size: int) -> tuple[Group, list[Contender]]:
    """Return the contenders of `up` on the running machines where nothing is to be done."""
    virsh = f"virsh -c {site.uri}"
    asked = "; ".join(
        f"{virsh} dumpxml {name}; {virsh} dumpxml --inactive {name}" for name in crowd.names
    )
    commands = {
        UP: [*site.vmctl, "up", "-q", str(crowd.spec)],
        "virsh, machine by machine": ["sh", "-c", asked],
        EACH: [sys.executable, "-c", _EACH_OF_SPEC, *crowd.names],
    }
    title = f"Nothing to do for {crowd.count} running machines, {size} defined"
    return Group(title, EACH, METRICS, UP_NOTES, subject=UP), _contenders(site, commands)


def slope(groups: Sequence[Group], sizes: Sequence[int]) -> Group:
    """Return what more machines cost: a line through the rounds of the same number.

    Raises ValueError for fewer than two populations.
    """
    least = min(len(group.rounds) for group in groups)
    title = f"How a list grows, {sizes[0]} to {sizes[-1]} machines"
    found = Group(title, LIST, (SLOPE,), dict.fromkeys(NOTES, ""), subject=PS)
    for index in range(least):
        rises = {
            name: {
                SLOPE: max(_LEAST, _rise([group.rounds[index] for group in groups], name, sizes))
            }
            for name in NOTES
        }
        found.rounds.append(Round((), rises))
    return found


def _rise(rounds: Sequence[Round], name: str, sizes: Sequence[int]) -> float:
    took = [each.samples[name][METRICS[0]] for each in rounds]
    return statistics.linear_regression(sizes, took).slope * _HUNDRED


def _contenders(site: Site, commands: dict[str, list[str]]) -> list[Contender]:
    return [
        Contender(name, lambda command=command: site.timed(*command))  # type: ignore[misc]
        for name, command in commands.items()
    ]
