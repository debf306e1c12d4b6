"""Checks of the directory tree that vmctl owns: reach, permissions, space."""

from __future__ import annotations

import os
import pathlib
import shlex
import stat

from vmctl.doctor import codes
from vmctl.doctor.model import Finding, Level, Patient
from vmctl.host import access
from vmctl.host.facts import QemuUser

LITTLE = 5 << 30
"""Bytes of free space below which a warning is due: about one installed guest."""
TOO_LITTLE = 256 << 20
"""Bytes of free space with which not even the smallest guest can be made."""


def examine(patient: Patient, store: pathlib.Path) -> list[Finding]:
    """Return what there is to say about the store at `store`, which need not exist yet."""
    return [_reach(patient, store), _permissions(patient, store), _space(store)]


def nearest(path: pathlib.Path) -> pathlib.Path:
    """Return `path`, or the nearest directory above it that exists."""
    # os.path, since pathlib raises where a directory above may not be entered.
    way = (path, *path.parents)
    return next((each for each in way if os.path.exists(each)), path)


def _reach(patient: Patient, store: pathlib.Path) -> Finding:
    account = patient.facts.qemu_user
    if not patient.system:
        return codes.info("STORE001", f"{store}; QEMU runs as you")
    if account is None:
        return codes.info("STORE001", f"{store}; no account for QEMU found")
    closed = closed_directory(store, account)
    if closed is None:
        return codes.ok("STORE001", str(store))
    quoted = shlex.quote(str(closed))
    return codes.finding(
        "STORE001",
        Level.FAILURE,
        f"{store} is out of its reach",
        cause=f"QEMU runs as '{account.name}', which cannot enter '{closed}' "
        f"({stat.filemode(closed.stat().st_mode)}).",
        fix=f"sudo setfacl -m u:{account.name}:x {quoted}, or put the store elsewhere: "
        "export VMCTL_HOME=/var/lib/vmctl",
    )


def closed_directory(store: pathlib.Path, account: QemuUser) -> pathlib.Path | None:
    """Return the topmost directory on the way to `store` that the account cannot enter."""
    way = (*reversed(store.parents), store)
    for directory in way:
        if not os.path.isdir(directory):
            return None
        if not access.may(directory, account.uid, account.gids, access.ENTER):
            return directory
    return None


def _permissions(patient: Patient, store: pathlib.Path) -> Finding:
    """The store's files get their modes whatever the umask is; its top must be nobody else's."""
    umask = f"umask {patient.facts.umask:03o}"
    try:
        status = store.stat()
    except OSError:
        return _creatable(store, umask)
    mode, quoted = stat.S_IMODE(status.st_mode), shlex.quote(str(store))
    if mode & 0o022:
        return codes.finding(
            "STORE002",
            Level.FAILURE,
            f"{stat.filemode(status.st_mode)}",
            cause=f"Others may write into '{store}', and so choose what your machines run.",
            fix=f"chmod go-w {quoted}",
        )
    if not os.access(store, os.W_OK):
        return codes.finding(
            "STORE002",
            Level.FAILURE,
            f"{stat.filemode(status.st_mode)}, not writable",
            cause=f"User '{patient.facts.user.name}' cannot write into '{store}'.",
            fix=f"sudo chown {patient.facts.user.name} {quoted}, or: export VMCTL_HOME=DIRECTORY",
        )
    return codes.ok("STORE002", f"{stat.filemode(status.st_mode)}, {umask}")


def _creatable(store: pathlib.Path, umask: str) -> Finding:
    above = nearest(store)
    if os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK):
        return codes.ok("STORE002", f"not there yet, can be created, {umask}")
    return codes.finding(
        "STORE002",
        Level.FAILURE,
        "cannot be created",
        cause=f"'{store}' does not exist, and '{above}' is not a directory that you can write to.",
        fix="Choose another place: export VMCTL_HOME=DIRECTORY",
    )


def _space(store: pathlib.Path) -> Finding:
    above = nearest(store)
    try:
        status = os.statvfs(above)
    except OSError as problem:
        return codes.info("STORE003", f"{above}: {problem.strerror}")
    free = status.f_bavail * status.f_frsize
    text = f"{free / (1 << 30):.1f} GiB free at {above}"
    if free >= LITTLE:
        return codes.ok("STORE003", text)
    return codes.finding(
        "STORE003",
        Level.FAILURE if free < TOO_LITTLE else Level.WARNING,
        text,
        cause="Disks of machines grow as they are written; a full file system pauses all of them.",
        fix="Free space there, or put the store elsewhere: export VMCTL_HOME=DIRECTORY",
    )
