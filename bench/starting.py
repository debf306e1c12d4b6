"""How long the command line itself takes: the help page, and a list of many machines."""

from __future__ import annotations

import sys

from bench.rounds import Contender, Group
from bench.site import Site

METRICS = ("wall_seconds", "cpu_seconds")
BARE = "bare interpreter"

_BULK = """
import libvirt
for domain, numbers in libvirt.open(None).getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE):
    print(domain.name(), domain.UUIDString(), numbers["state.state"])
"""


def help_page(site: Site) -> tuple[Group, list[Contender]]:
    """Return the contenders of `--help`."""
    commands = {
        "vmctl --help": [*site.vmctl, "--help"],
        "vmctl --version": [*site.vmctl, "--version"],
        "vmctl up --help": [*site.vmctl, "up", "--help"],
        BARE: [sys.executable, "-c", "pass"],
        "virsh --help": ["virsh", "--help"],
        "/bin/true": ["/bin/true"],
    }
    notes = dict.fromkeys(commands, "")
    notes[BARE] = "`python -c pass`, the same interpreter in the same virtualenv"
    notes["/bin/true"] = "what the measuring itself costs"
    group = Group(title="The command line's own start", baseline=BARE, metrics=METRICS, notes=notes)
    return group, _contenders(site, commands)


def listing(site: Site, count: int) -> tuple[Group, list[Contender]]:
    """Return the contenders of `ps`, to be run while `count` machines are defined."""
    bulk = "libvirt-python in bulk"
    commands = {
        "vmctl ps --all": [*site.vmctl, "ps", "--all"],
        "vmctl ps --all --json": [*site.vmctl, "ps", "--all", "--json"],
        "virsh list --all": ["virsh", "-c", site.uri, "list", "--all"],
        bulk: [sys.executable, "-c", _BULK],
        "import libvirt": [sys.executable, "-c", "import libvirt"],
    }
    notes = dict.fromkeys(commands, "")
    notes[bulk] = "one connection, one bulk call, names, UUIDs and states printed: the least that "
    notes[bulk] += "a Python program can do"
    notes["import libvirt"] = "the binding's import alone"
    title = f"A list of {count} machines that are off"
    group = Group(title, "virsh list --all", METRICS, notes, subject="vmctl ps --all")
    return group, _contenders(site, commands)


def _contenders(site: Site, commands: dict[str, list[str]]) -> list[Contender]:
    return [
        Contender(name, lambda command=command: site.timed(*command))  # type: ignore[misc]
        for name, command in commands.items()
    ]
