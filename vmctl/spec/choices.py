"""The words that keys of a spec may have for values."""

from __future__ import annotations

import enum


class Mode(enum.StrEnum):
    """How the guest is virtualised; a preset over `accel` and `devices`."""

    FULL = "full"
    HARDWARE = "hardware"
    PARAVIRT = "paravirt"
    AUTO = "auto"

    @property
    def meaning(self) -> tuple[Accel, Devices] | None:
        """The accelerator and devices that the mode stands for; None for `auto`."""
        return _MEANINGS.get(self)


class Accel(enum.StrEnum):
    """Who executes the guest's instructions."""

    TCG = "tcg"
    KVM = "kvm"


class Devices(enum.StrEnum):
    """Which kind of hardware the guest is shown."""

    EMULATED = "emulated"
    VIRTIO = "virtio"


_MEANINGS = {
    Mode.FULL: (Accel.TCG, Devices.EMULATED),
    Mode.HARDWARE: (Accel.KVM, Devices.EMULATED),
    Mode.PARAVIRT: (Accel.KVM, Devices.VIRTIO),
}


class DiskFormat(enum.StrEnum):
    """Formats of a disk image."""

    QCOW2 = "qcow2"
    RAW = "raw"


class NetworkKind(enum.StrEnum):
    """What a network card is plugged into."""

    USER = "user"
    NAT = "nat"
    ISOLATED = "isolated"
    BRIDGE = "bridge"
    NETWORK = "network"


class Protocol(enum.StrEnum):
    """What is forwarded."""

    TCP = "tcp"
    UDP = "udp"


class ReadyWhen(enum.StrEnum):
    """What makes a machine count as ready."""

    CONSOLE = "console"
    RUNNING = "running"
    SSH = "ssh"
    CLOUD_INIT = "cloud-init"
    AGENT = "agent"


class Boot(enum.StrEnum):
    """What loads the guest's kernel."""

    DISK = "disk"
    KERNEL = "kernel"


class Chipset(enum.StrEnum):
    """The mainboard."""

    Q35 = "q35"
    PC = "pc"


class Firmware(enum.StrEnum):
    """What the machine starts with."""

    BIOS = "bios"
    UEFI = "uefi"
    UEFI_SECURE = "uefi-secure"


class Display(enum.StrEnum):
    """Whether there is a screen."""

    NONE = "none"
    VNC = "vnc"
