"""The connection to libvirt, and what is behind it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import libvirt

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.hypervisor import failures
from vmctl.store.layout import Layout

SYSTEM = "qemu:///system"
SESSION = "qemu:///session"
CALLS_IN_FLIGHT = 4
"""Libvirtd's max_client_requests is 5 for each connection; one is left for keepalives."""

_OPEN_SECONDS = 60.0
_P = ParamSpec("_P")
_R = TypeVar("_R")


class Calls:
    """Lets a few threads at a time talk to libvirt; a thread that does already goes on."""

    def __init__(self, most: int) -> None:
        self._slots = threading.BoundedSemaphore(most)
        self._mine = threading.local()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be one of the few for the length of the block."""
        if getattr(self._mine, "held", False):
            yield
            return
        with self._slots:
            self._mine.held = True
            try:
                yield
            finally:
                self._mine.held = False


CALLS = Calls(CALLS_IN_FLIGHT)
"""One for the process: a command has one connection, which its threads share."""


def in_turn(call: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a function that asks libvirt outside a step wait until few others do."""

    @functools.wraps(call)
    def waiting(*arguments: _P.args, **named: _P.kwargs) -> _R:
        with CALLS.held():
            return call(*arguments, **named)

    return waiting


def default_uri() -> str:
    """Return LIBVIRT_DEFAULT_URI, else the system's libvirt for root and the user's for others."""
    return os.environ.get("LIBVIRT_DEFAULT_URI") or (SYSTEM if os.geteuid() == 0 else SESSION)


@dataclasses.dataclass(frozen=True, slots=True)
class Versions:
    """Version numbers as (major, minor, release)."""

    libvirt: tuple[int, int, int]
    qemu: tuple[int, int, int]


class Connection:
    """An open connection; `handle` is libvirt's own object, used inside this package only."""

    def __init__(self, handle: libvirt.virConnect, uri: str) -> None:
        self.handle = handle
        self.uri = uri

    @property
    def session(self) -> bool:
        """True where QEMU runs as the user itself, without rights of its own."""
        return self.uri.partition("?")[0].endswith("/session")

    @property
    def real(self) -> bool:
        """False for libvirt's in-process test driver, which runs no guests."""
        return self.uri.startswith("qemu")

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(libvirt.libvirtError):
            self.handle.close()

    def versions(self) -> Versions:
        """Return the versions of the daemon's libvirt and its QEMU."""
        with failures.translated("ask libvirt for its version"):
            return Versions(_version(self.handle.getLibVersion()), _version(self._qemu()))

    def _qemu(self) -> int:
        return int(self.handle.getVersion()) if self.real else 0

    def offers_kvm(self) -> bool:
        """Tell whether libvirt itself lists KVM for x86-64 guests."""
        import xml.etree.ElementTree as ET

        with failures.translated("ask libvirt for its capabilities"):
            text = self.handle.getCapabilities()
        kinds = ET.fromstring(text).iterfind("guest/arch[@name='x86_64']/domain")  # noqa: S314
        return any(kind.get("type") == "kvm" for kind in kinds)


def _version(number: int) -> tuple[int, int, int]:
    return number // 1_000_000, number // 1_000 % 1_000, number % 1_000


@contextlib.contextmanager
def opened(
    uri: str | None, layout: Layout, *, deadline: Deadline | None = None, events: bool = False
) -> Iterator[Connection]:
    """Open a connection for the length of the block, and start the daemon where nobody else does.

    `events` runs libvirt's event loop in a thread, which streams need. Raises HostError with the
    fix where libvirt cannot be reached.
    """
    failures.quiet()
    if events:
        _run_event_loop()
    connection = connect(uri or default_uri(), layout, deadline or Deadline.after(_OPEN_SECONDS))
    try:
        yield connection
    finally:
        connection.close()


def connect(uri: str, layout: Layout, deadline: Deadline) -> Connection:
    """Return an open connection; see `opened`."""
    try:
        return Connection(libvirt.open(uri), uri)
    except libvirt.libvirtError as problem:
        from vmctl.hypervisor import daemon

        if not _no_daemon(problem) or uri != SYSTEM or not daemon.startable():
            raise _unreachable(uri, problem) from None
    daemon.start(layout, deadline)
    try:
        return Connection(libvirt.open(uri), uri)
    except libvirt.libvirtError as problem:
        raise _unreachable(uri, problem) from None


def _no_daemon(problem: libvirt.libvirtError) -> bool:
    text = str(problem)
    return "Failed to connect socket" in text or "Connection refused" in text


def _unreachable(uri: str, problem: libvirt.libvirtError) -> errors.HostError:
    from vmctl.hypervisor import daemon

    text = failures.first_line(str(problem.get_error_message() or problem))
    if _no_daemon(problem) and uri.startswith((SYSTEM, SESSION)):
        daemon.require_installed()
    hint = _session_hint(text) if uri.startswith(SESSION) else _hint(text, problem)
    return errors.HostError(f"Libvirt cannot be reached at '{uri}': {text}.", hint=hint)


def _session_hint(text: str) -> str:
    if any(mark in text for mark in ("Cannot create", "Permission denied", "Read-only")):
        return "HOME and XDG_RUNTIME_DIR must name directories that you may write to."
    return "vmctl doctor shows what is wrong; libvirt's own words: libvirtd --verbose"


def _hint(text: str, problem: libvirt.libvirtError) -> str:
    # Polkit, which decides on the rights, is asked over the system's bus.
    if any(mark in text for mark in ("Permission denied", "authentication", "system bus")):
        return (
            "Join the group: sudo usermod -aG libvirt $USER, then log in anew. "
            f"Or use a libvirt of your own: vmctl -c {SESSION}"
        )
    if "No connection driver" in text or "unsupported" in text.lower():
        return f"Known URIs are {SYSTEM} and {SESSION}."
    if _no_daemon(problem):
        return "Start it: sudo systemctl start libvirtd (or, without systemd: sudo libvirtd -d)"
    return "vmctl doctor shows what is wrong."


def _run_event_loop() -> None:
    libvirt.virEventRegisterDefaultImpl()

    def forever() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=forever, daemon=True, name="libvirt-events").start()
