"""Makes the mounts of a machine in its guest, and says why one failed."""

from __future__ import annotations

from collections.abc import Sequence

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.guest import agent, script
from vmctl.guest.remote import Streams
from vmctl.guest.shell import Request
from vmctl.guest.ssh import Access
from vmctl.hypervisor.connection import Connection
from vmctl.machine import mounting
from vmctl.machine.model import Mount

_NO_DRIVER = "no-driver"


def over_ssh(access: Access, mounts: Sequence[Mount], deadline: Deadline) -> None:
    """Mount in the guest what is not mounted yet, and put it into its fstab.

    Raises GuestError where the guest cannot.
    """
    heard: list[bytes] = []
    task = script.Script(content=mounting.guest_script(mounts).encode())
    status = script.run(access, task, deadline, heard.append)
    _judge(access.name, mounts, status, b"".join(heard))


def through_agent(
    connection: Connection, name: str, mounts: Sequence[Mount], deadline: Deadline
) -> None:
    """Do the same where no ssh leads in, and the guest agent answers."""
    heard: list[bytes] = []
    request = Request(argv=("/bin/sh", "-c", mounting.guest_script(mounts)))
    streams = Streams(stdin=None, stdout=heard.append, stderr=heard.append)
    status = agent.run(connection, name, request, streams, timeout=deadline)
    _judge(name, mounts, status, b"".join(heard))


def _judge(name: str, mounts: Sequence[Mount], status: int, heard: bytes) -> None:
    said = heard.decode("utf-8", "replace")
    failures = list(_failures(mounts, said))
    if failures:
        raise errors.GuestError(
            f"Machine '{name}' cannot mount {'; '.join(failures)}.",
            hint=f"Copy what is needed instead: vmctl cp DIRECTORY {name}:PLACE; or use an "
            "image whose kernel has the file system.",
            details=said.strip(),
        )
    if status != 0:
        raise errors.GuestError(
            f"Machine '{name}' could not make its mounts (status {status}).",
            hint=f"Look around: vmctl console {name}",
            details=said.strip(),
        )


def _failures(mounts: Sequence[Mount], said: str) -> list[str]:
    found = []
    by_tag = {mount.tag: mount for mount in mounts}
    for line in said.splitlines():
        mark, _, rest = line.partition(" ")
        tag, _, reason = rest.partition(" ")
        if mark != mounting.FAILED or tag not in by_tag:
            continue
        mount = by_tag[tag]
        if reason == _NO_DRIVER:
            reason = f"the guest's kernel has no {mount.share}"
        found.append(f"'{mount.guest}': {reason}")
    return found


def by_hand(mounts: Sequence[Mount]) -> str:
    """Return the commands for a person at the guest's console."""
    return "; ".join(
        f"mount -t {mount.share} -o {mounting.options(mount)} {mount.tag} '{mount.guest}'"
        for mount in mounts
    )
