"""What the doctor is told about libvirt, and what it says."""

from __future__ import annotations

import dataclasses
import enum

from vmctl.host.facts import HostFacts


class Level(enum.StrEnum):
    """How much a finding matters."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    FAILURE = "failure"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the diagnosis; warnings and failures have a `cause` and a `fix`."""

    code: str
    title: str
    level: Level
    detail: str = ""
    cause: str = ""
    fix: str = ""

    @property
    def bad(self) -> bool:
        """True where there is something to explain."""
        return self.level in (Level.WARNING, Level.FAILURE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LibvirtFacts:
    """What a connection to libvirt showed; versions as 'major.minor.release'.

    `error` and `hint` say why it was not reachable. `kvm_in_capabilities` says that libvirt offers
    <domain type='kvm'> for x86-64.
    """

    reachable: bool
    uri: str = ""
    error: str = ""
    hint: str = ""
    libvirt_version: str = ""
    qemu_version: str = ""
    kvm_in_capabilities: bool = False

    @property
    def system(self) -> bool:
        """True where QEMU runs under an account of its own."""
        return self.uri.split("?")[0].endswith("/system")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """Everything the checks look at."""

    facts: HostFacts
    libvirt: LibvirtFacts | None = None

    @property
    def system(self) -> bool:
        """True where guests are started through qemu:///system, by default so for root."""
        if self.libvirt is None or not self.libvirt.uri:
            return self.facts.user.uid == 0
        return self.libvirt.system
