"""Shows machines after `up`, and one machine in full."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vmctl.ui import confinement, escape, terminal

if TYPE_CHECKING:
    from vmctl.lifecycle.listing import Details

_LABEL = 12


def show(found: Sequence[Details]) -> None:
    """Say of each machine what it is and how to get in."""
    for details in found:
        terminal.put("\n".join(_summary(details)))


def _summary(details: Details) -> Iterator[str]:
    machine = details.machine
    ready = " and ready" if details.ready else ""
    yield f"{machine.name} is {details.state}{ready}: mode {machine.mode}."
    for forward in details.forwards:
        yield _line("port", forward)
    for address in details.addresses:
        yield _line("address", address)
    if machine.user:
        yield _line("ssh", f"vmctl ssh {machine.name}   (as {machine.user})")
    yield _line("console", f"vmctl console {machine.name}   (leave it with Ctrl-])")
    yield _line("log", f"vmctl logs {machine.name}")


def show_one(details: Details) -> None:
    """Show everything about one machine."""
    out = terminal.of(sys.stdout)
    lines = _everything(details, out)
    terminal.put("\n".join(_folded(line, out.width) if out.tty else line for line in lines))


def _folded(line: str, width: int) -> str:
    """Wrap a line at words, under its own text."""
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * (_LABEL + 3),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _everything(details: Details, out: terminal.Terminal) -> Iterator[str]:
    machine = details.machine
    state = f"{details.state}{' and ready' if details.ready else ''}"
    yield _line("name", machine.name)
    yield _line("project", machine.project)
    yield _line("state", f"{state}{f' ({details.reason})' if details.reason else ''}")
    yield _line("mode", f"{machine.mode}{f': {details.why}' if details.why else ''}")
    if details.accel:
        process = f", process {details.holding.pid}" if details.holding.pid else ""
        yield _line("running on", f"{details.accel} (as QEMU itself says){process}")
    if machine.image is not None:
        yield _line("image", f"{machine.image.name} ({machine.image.digest[:12]})")
    yield _line("cpus", f"{machine.cpus} of at most {machine.cpus_max}")
    mib = 1 << 20
    yield _line("memory", f"{machine.memory // mib} MiB of at most {machine.memory_max // mib} MiB")
    for disk in machine.disks:
        kept = ", kept" if disk.keep else ""
        size = "as it is" if disk.external else f"{disk.size // mib} MiB"
        yield _line("disk", f"{disk.name}: {size}{kept}, {disk.file}")
    for nic in machine.nics:
        yield _line("network", f"{nic.kind}: {nic.model}, {nic.mac}")
    for address in details.addresses:
        yield _line("address", address)
    for forward in details.forwards:
        yield _line("port", forward)
    yield from _guest(details)
    if details.display:
        password = machine.console_log.rpartition("/")[0]
        yield _line("display", f"{details.display} (password in {password}/vnc-password)")
    for label, text, fine in confinement.lines(details.holding):
        yield _line(label, text if fine else out.painted(text, "yellow"))
    yield _line("spec", details.spec)
    yield _line("console log", machine.console_log)
    if details.interrupted:
        text = f"'{details.interrupted}' was interrupted; run it again to finish it"
        yield _line("unfinished", out.painted(text, "yellow"))
    for change in details.pending:
        text = f"{escape.one_line(change)} (restart it: vmctl restart {machine.name})"
        yield _line("next start", out.painted(text, "yellow"))
    for drift in details.drift:
        yield _line("drift", out.painted(escape.one_line(drift), "yellow"))


def _guest(details: Details) -> Iterator[str]:
    """Say how to get in, and what vmctl did inside."""
    if details.machine.user:
        yield _line("ssh", f"vmctl ssh {details.machine.name}   (as {details.machine.user})")
    if details.login:
        yield _line("login", details.login)
    for mount in details.machine.mounts:
        how = f"{mount.share}, {'writable' if mount.writable else 'read-only'}"
        yield _line("mount", f"{escape.one_line(f'{mount.host} -> {mount.guest}')} ({how})")
    if details.provisioned:
        yield _line("provisioned", details.provisioned)
    if details.snapshots:
        since = f", goes on from '{details.snapshot}'" if details.snapshot else ""
        yield _line("snapshots", f"{details.snapshots}{since}")


def _line(label: str, text: str) -> str:
    return f"  {label + ':':<{_LABEL}} {text}"
