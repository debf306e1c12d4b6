"""Time to a command in a running guest: `vmctl exec`, and ssh with the same options."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bench.boot import MODES
from bench.rounds import Contender, Group
from bench.site import Site

METRICS = ("wall_seconds", "cpu_seconds")
FRESH = "ssh, a login for each"
SHARED = "ssh, through the same connection"
EXEC = "vmctl exec"
AGENT = "vmctl exec --agent"


@contextlib.contextmanager
def running(site: Site, mode: str) -> Iterator[tuple[Group, list[Contender]]]:
    """Bring a tiny machine up for the length of the block, and return who is measured on it."""
    name = f"{site.prefix}in-{mode}"
    directory = site.home / "bench" / f"in-{mode}"
    directory.mkdir(parents=True, exist_ok=True)
    spec = directory / "vmctl.yaml"
    spec.write_text(f"name: {name}\nproject: {name}\nimage: tiny\nmemory: 128MiB\n{MODES[mode]}\n")
    site.call(*site.vmctl, "up", str(spec))
    try:
        yield _group(mode), _contenders(site, name, virtio=mode in ("tcg-virtio", "paravirt"))
    finally:
        site.call(*site.vmctl, "down", "-y", name)


def _group(mode: str) -> Group:
    notes = {
        EXEC: "with the connection that an earlier command left",
        SHARED: "OpenSSH's own ControlMaster, which vmctl exec uses too",
        FRESH: "what `vmctl ssh-config` prints",
        AGENT: "no network; output is read from files in the guest",
    }
    return Group(f"`true` in a guest, mode {mode}", FRESH, METRICS, notes, subject=EXEC)


def _contenders(site: Site, name: str, *, virtio: bool) -> list[Contender]:
    config = site.home / "bench" / f"{name}.ssh"
    config.write_text(site.call(*site.vmctl, "ssh-config", name))
    plain = ["ssh", "-F", str(config), "-o", "BatchMode=yes"]
    sharing = [
        *("-o", "ControlMaster=auto", "-o", "ControlPersist=60"),
        *("-o", f"ControlPath={site.home}/bench/%C"),
    ]
    commands = {
        EXEC: [*site.vmctl, "exec", name, "--", "true"],
        SHARED: [*plain, *sharing, name, "true"],
        FRESH: [*plain, name, "true"],
    }
    if virtio:
        commands[AGENT] = [*site.vmctl, "exec", "--agent", name, "--", "true"]
    return [
        Contender(each, lambda command=command: site.timed(*command))  # type: ignore[misc]
        for each, command in commands.items()
    ]
