"""Directories of the host that guests get: whether they are there, and who may read them."""

from __future__ import annotations

import os
import pathlib
import shlex

from vmctl import errors
from vmctl.host import access as permissions
from vmctl.host import accounts
from vmctl.host.facts import DeviceNode, QemuUser
from vmctl.hypervisor import connection as connections
from vmctl.machine.model import Machine, Mount, Share


def absence(path: str) -> str:
    """Return what is wrong with the path of a mount, or nothing."""
    if os.path.isdir(path):
        return ""
    if os.path.exists(path):
        return f"'{path}' is not a directory"
    return f"there is no directory '{path}'"


def require(machine: Machine, uri: str) -> None:
    """Raise HostError for the first mount that QEMU could not serve."""
    for complaint in filter(None, (absence(mount.host) for mount in machine.mounts)):
        raise errors.HostError(
            f"Machine '{machine.name}' cannot be started: {complaint}.",
            hint="Make it, or take the mount out of the spec.",
        )
    session = uri.startswith(connections.SESSION)
    account = None if session else accounts.qemu_user(pathlib.Path("/"), DeviceNode())
    for mount in machine.mounts:
        _require_own_right(machine, mount)
        if account is not None and mount.share is Share.NINE_P:
            _require_right(machine, mount, account)


def _wanted(mount: Mount) -> int:
    wanted = permissions.READ | permissions.ENTER
    return wanted | permissions.WRITE if mount.writable else wanted


def _require_own_right(machine: Machine, mount: Mount) -> None:
    """A guest gets nothing that whoever asks for it could not open."""
    if not os.access(mount.host, _wanted(mount)):
        raise errors.HostError(
            f"Machine '{machine.name}' cannot have '{mount.host}': you may not "
            f"{'write to' if mount.writable else 'read'} it yourself.",
            hint=f"See who may: ls -ld {shlex.quote(mount.host)}",
        )


def _require_right(machine: Machine, mount: Mount, account: QemuUser) -> None:
    place = pathlib.Path(mount.host)
    for directory in (*reversed(place.parents), place):
        wanted = _wanted(mount) if directory == place else permissions.ENTER
        if permissions.may(directory, account.uid, account.gids, wanted):
            continue
        verb = "enter" if directory != place else "write to" if mount.writable else "read"
        letters = "x" if directory != place else "rwx" if mount.writable else "rx"
        grant = f"setfacl -m u:{account.name}:{letters} {shlex.quote(str(directory))}"
        raise errors.HostError(
            f"Machine '{machine.name}' cannot have '{mount.host}': QEMU serves it under its own "
            f"account '{account.name}', which may not {verb} '{directory}'.",
            hint=f"Let it: {grant}; or copy what is needed: vmctl cp",
        )
