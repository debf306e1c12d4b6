"""A stream to a machine's first serial port."""

from __future__ import annotations

import contextlib

import libvirt

from vmctl import errors
from vmctl.hypervisor import domains, failures
from vmctl.hypervisor.connection import Connection

_NOTHING_YET = -2
_CHUNK = 4096


class Stream:
    """Bytes to and from a serial console; the connection must run libvirt's event loop."""

    def __init__(self, connection: Connection, name: str, *, force: bool = False) -> None:
        """Open the console; `force` takes it from whoever has it.

        Raises ConflictError when somebody else has it, or the machine does not run.
        """
        domain = domains.get(connection, name)
        state, _ = domains.state(domain)
        if not state.active:
            raise errors.ConflictError(
                f"Machine '{name}' is {state}: there is no console to connect to.",
                hint=f"Start it: vmctl start {name}; read what it wrote: vmctl logs {name}",
            )
        self._name = name
        self._stream = connection.handle.newStream(libvirt.VIR_STREAM_NONBLOCK)
        flag = libvirt.VIR_DOMAIN_CONSOLE_FORCE if force else libvirt.VIR_DOMAIN_CONSOLE_SAFE
        try:
            domain.openConsole(None, self._stream, flag)
        except libvirt.libvirtError as problem:
            if failures.code(problem) == libvirt.VIR_ERR_OPERATION_FAILED:
                raise errors.ConflictError(
                    f"Somebody else is connected to the console of machine '{name}'.",
                    hint=f"Take it over: vmctl console --force {name}",
                ) from None
            raise failures.translate(problem, f"open the console of '{name}'") from None

    def receive(self) -> bytes | None:
        """Return what came, b'' when nothing did yet, None at the end."""
        try:
            data = self._stream.recv(_CHUNK)
        except libvirt.libvirtError:
            return None
        if data == _NOTHING_YET:
            return b""
        return data or None

    def send(self, data: bytes) -> bytes:
        """Send what can be sent now, and return the rest."""
        with failures.translated(f"write to the console of '{self._name}'"):
            sent = self._stream.send(data)
        return data if sent == _NOTHING_YET else data[sent:]

    def close(self) -> None:
        """Let go of the console."""
        with contextlib.suppress(libvirt.libvirtError):
            self._stream.abort()
