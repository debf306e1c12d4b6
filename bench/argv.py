"""The command line of a running QEMU, made fit for starting it without libvirt. Pure."""

from __future__ import annotations

from collections.abc import Sequence

LIBVIRT_ONLY = {
    "-add-fd": "a descriptor that libvirt opened",
    "-mon": "the monitor that libvirt talks to",
}
"""Options that mean something only in a process that libvirt started."""

LIBVIRT_OBJECTS = ("charmonitor", "masterKey0", "libvirt-")
PAUSED = "-S"


class NoConsoleError(ValueError):
    """The command line has no serial console that could be sent elsewhere."""


def standalone(command: Sequence[str], console: str) -> list[str]:
    """Return the argument vector with its first serial port writing to the file `console`.

    What goes: the monitor, the secrets, descriptors that were handed over, and the wait for
    libvirt's go-ahead. What stays: the machine, down to the addresses of its devices. Sockets that
    libvirt had opened get a path beside `console`. Raises NoConsoleError where there is no serial
    port.
    """
    adapted = [command[0]]
    found = False
    for option, given in options(command[1:]):
        value = given
        if option in LIBVIRT_ONLY or option == PAUSED or _is_libvirts(option, value):
            continue
        if option == "-chardev" and "id=charserial0" in (given or "").split(","):
            value, found = f"file,id=charserial0,path={console}", True
        elif option == "-chardev" and given is not None and given.startswith("socket,"):
            value = _with_path(given, console)
        adapted += [option] if value is None else [option, value]
    if not found:
        raise NoConsoleError("QEMU was started without a serial port")
    return adapted


def options(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return the words of a command line as options, each with its value if it has one."""
    found: list[tuple[str, str | None]] = []
    for word in words:
        last = found[-1] if found else None
        if last is not None and last[1] is None and not word.startswith("-"):
            found[-1] = (last[0], word)
        else:
            found.append((word, None))
    return found


def _with_path(chardev: str, console: str) -> str:
    """Return a socket's description with a path in place of a descriptor."""
    words = chardev.split(",")
    name = next((word[3:] for word in words if word.startswith("id=")), "socket")
    return ",".join(f"path={console}.{name}" if word.startswith("fd=") else word for word in words)


def _is_libvirts(option: str, value: str | None) -> bool:
    if option not in ("-chardev", "-object") or value is None:
        return False
    return any(name in value for name in LIBVIRT_OBJECTS)
