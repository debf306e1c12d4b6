"""Starts libvirt's daemons where nothing else does: containers, CI images, no systemd."""

from __future__ import annotations

import os
import pathlib
import sys

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.store import locks
from vmctl.store.layout import Layout

IDLE_SECONDS = 300
"""An unused libvirtd leaves after this time; it stays while guests or networks are active."""

_RUNNING_SYSTEMD = pathlib.Path("/run/systemd/system")
_SOCKETS = ("libvirt-sock", "virtqemud-sock")
_RUNTIME = pathlib.Path("/run/libvirt")
_LOGGER = pathlib.Path("/run/libvirt/virtlogd-sock")
_KEEPER = pathlib.Path(__file__).with_name("keeper.py")
_VARIABLES = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "LOGNAME", "LD_LIBRARY_PATH")
_PREFIXES = ("LC_", "XDG_", "LIBVIRT_")
_DEFAULTS = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_ENGLISH = {"LC_ALL": "C.UTF-8"}
_START_SECONDS = 30.0
_OTHERS_SECONDS = 5.0
"""How long one that is just being started by somebody else may take to listen."""
_POLL = 0.05


def startable() -> bool:
    """Tell whether it is up to us: root, and no systemd that would start libvirt on demand."""
    return os.geteuid() == 0 and not _RUNNING_SYSTEMD.is_dir()


def start(layout: Layout, deadline: Deadline) -> None:
    """Start virtlogd and libvirtd if they are not there yet; one vmctl does it, others wait.

    Raises HostError where the programs are missing or do not come up.
    """
    limit = deadline.within(_START_SECONDS)
    with locks.hold(layout.lock("daemon", "libvirtd"), limit, "Libvirt's daemon"):
        if _listening():
            return
        require_installed()
        if not _accepts(_LOGGER) and process.find("virtlogd") is not None:
            _started(["virtlogd", "-d"], limit)
        started = _started(["libvirtd", "-d", "--timeout", str(IDLE_SECONDS)], limit)
        # One that cannot start may only have lost a race: only one libvirtd can hold its pid file.
        limit = limit if started.status == 0 else limit.within(_OTHERS_SECONDS)
        while not _listening():
            if limit.passed:
                raise errors.HostError(
                    "Libvirt's daemon does not come up.",
                    hint="See why: libvirtd --verbose",
                    details=started.complaint,
                )
            limit.pause(_POLL)


def _started(words: list[str], deadline: Deadline) -> process.Completed:
    """Run a program that becomes a daemon, under a keeper of its own."""
    program = process.find(words[0]) or words[0]
    command = [sys.executable, "-I", str(_KEEPER), program, *words[1:]]
    return process.run(["env", "-i", *_settings(), *command], deadline, check=False)


def _settings() -> list[str]:
    """Return the variables that a daemon gets, as NAME=VALUE.

    It lives for hours, and our own environment may hold the secrets of a job.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _VARIABLES or name.startswith(_PREFIXES)
    }
    return [f"{name}={value}" for name, value in {**_DEFAULTS, **kept, **_ENGLISH}.items()]


def require_installed() -> None:
    """Raise HostError, with the package to install, where there is no libvirtd to start."""
    if process.find("libvirtd") is None:
        from vmctl.host import remedy, surroundings

        distribution = surroundings.distribution(pathlib.Path("/"))
        raise errors.HostError(
            "Libvirt's daemon 'libvirtd' is not installed.",
            hint=f"Install it: {remedy.Family.of(distribution).install(remedy.Part.LIBVIRT)}",
        )


def _listening() -> bool:
    return any(_accepts(_RUNTIME / name) for name in _SOCKETS)


def _accepts(path: pathlib.Path) -> bool:
    """Tell whether somebody listens: the file alone may be left from a killed daemon."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2.0)
        try:
            client.connect(os.fspath(path))
        except OSError:
            return False
    return True
