"""Everything that can go wrong, grouped by who must act; only `cli` catches these."""

from __future__ import annotations


class VmctlError(Exception):
    """A failure that a user can read: whole sentences, never a traceback.

    `message` says what was wrong and with which value, `hint` is an instruction (a command to
    type, where there is one), `details` is text of another program or of the guest (shown escaped).
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


class UsageError(VmctlError):
    """The command line or the spec must change."""

    exit_code = 2


class NotFoundError(VmctlError):
    """What was named does not exist."""

    exit_code = 3


class ConflictError(VmctlError):
    """It exists already, is in use, is locked, or belongs to somebody else."""

    exit_code = 4


class HostError(VmctlError):
    """The host lacks something: KVM, a program, a permission, disk space."""

    exit_code = 5


class WaitTimeoutError(VmctlError):
    """A deadline passed; the message says what was awaited and what was last seen."""

    exit_code = 6


class RefusedError(VmctlError):
    """Refused for integrity or security: a wrong digest, an image that refers to other files."""

    exit_code = 7


class GuestError(VmctlError):
    """The guest failed: panic, provisioning, KVM gave up on it."""

    exit_code = 8


class InterruptError(VmctlError):
    """Ctrl-C or SIGTERM arrived; what had begun was left so that the same command puts it right."""

    exit_code = 130


class ProgramError(VmctlError):
    """Another program failed; `details` carries what it printed to stderr."""


class HypervisorError(VmctlError):
    """Libvirt refused or failed; `code` and `domain` are libvirt's own error numbers."""

    def __init__(
        self, message: str, *, code: int = 0, domain: int = 0, hint: str = "", details: str = ""
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.code = code
        self.domain = domain
