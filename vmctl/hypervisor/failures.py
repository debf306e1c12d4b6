"""Libvirt's errors, turned into ours in one place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import libvirt

from vmctl import errors

_MISSING = {
    libvirt.VIR_ERR_NO_DOMAIN: "machine",
    libvirt.VIR_ERR_NO_NETWORK: "network",
}


def quiet() -> None:
    """Stop libvirt from printing errors to stderr by itself."""
    libvirt.registerErrorHandler(_ignore, None)


def _ignore(_context: object, _error: object) -> None:
    """Take an error that is raised as an exception as well."""


def code(problem: libvirt.libvirtError) -> int:
    """Return libvirt's number of an error; 0 when it has none."""
    return int(problem.get_error_code() or 0)


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise our own errors for libvirt's; `doing` completes "Could not …"."""
    try:
        yield
    except libvirt.libvirtError as problem:
        raise translate(problem, doing) from None


def translate(problem: libvirt.libvirtError, doing: str) -> errors.VmctlError:
    """Return our error for one of libvirt's, with a cause and a fix where one is known."""
    text = str(problem.get_error_message() or problem).strip()
    number = code(problem)
    if number in _MISSING:
        return errors.NotFoundError(f"Could not {doing}: {text}.")
    for mark, hint, kind in _KNOWN:
        if mark in text:
            return kind(f"Could not {doing}: {first_line(text)}.", hint=hint, details=rest(text))
    return errors.HypervisorError(
        f"Could not {doing}: {first_line(text)}.",
        code=number,
        domain=int(problem.get_error_domain() or 0),
        details=rest(text),
    )


def first_line(text: str) -> str:
    """Return the first line without its full stop."""
    return text.splitlines()[0].rstrip(".") if text else "libvirt gave no reason"


def rest(text: str) -> str:
    """Return all but the first line."""
    return "\n".join(text.splitlines()[1:])


_UNREADABLE = (
    "QEMU's user must be able to read the file and to cross every directory above it: "
    "vmctl doctor checks the store."
)

_LONG_HOME = (
    "The path of your home directory is too long for libvirt's sockets: start libvirt with a "
    "shorter XDG_CONFIG_HOME, or use mode full, which has no guest agent."
)

_NO_QUEUES = (
    "The kernel cannot hold a card to net_rate; load what it takes: sudo modprobe -a sch_htb "
    "sch_sfq sch_ingress cls_fw cls_u32 act_police; or leave out net_rate."
)

_KNOWN: tuple[tuple[str, str, type[errors.VmctlError]], ...] = (
    (
        "does not support virt type 'kvm'",
        "QEMU's user cannot use /dev/kvm: vmctl doctor shows why.",
        errors.HostError,
    ),
    (
        'Failed to get "write" lock',
        "Another QEMU process uses this disk image; stop that one first.",
        errors.ConflictError,
    ),
    (
        "Failed to get shared",
        "Another QEMU process uses this disk image; stop that one first.",
        errors.ConflictError,
    ),
    (
        "already exists with uuid",
        "Choose another name in the spec; vmctl ps and virsh list --all show what is there.",
        errors.ConflictError,
    ),
    (
        "Could not open",
        _UNREADABLE,
        errors.HostError,
    ),
    (
        "Permission denied",
        _UNREADABLE,
        errors.HostError,
    ),
    (
        "TPM version '2.0' is not supported",
        "Install both swtpm and swtpm-tools, then restart libvirtd.",
        errors.HostError,
    ),
    (
        "Cannot allocate memory",
        "The host has too little free memory; lower memory: in the spec.",
        errors.HostError,
    ),
    (
        "UNIX socket path",
        _LONG_HOME,
        errors.HostError,
    ),
    ("No space left on device", "Free some disk space: vmctl doctor shows it.", errors.HostError),
    (
        "unable to open vhost-vsock device",
        "Load the module: sudo modprobe vhost_vsock",
        errors.HostError,
    ),
    (
        "Child process (tc ",
        _NO_QUEUES,
        errors.HostError,
    ),
    (
        "cannot limit locked memory",
        "memory_limit takes CAP_SYS_RESOURCE, which libvirt does not have here: leave it out.",
        errors.HostError,
    ),
    ("/dev/net/tun", "Load the module: sudo modprobe tun", errors.HostError),
)
"""Texts of libvirt and QEMU, what to do about them, and who must act."""
