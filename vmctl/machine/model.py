"""What will run: one virtual machine with every default filled in. Frozen and serialisable."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from typing import Any


class Accel(enum.StrEnum):
    """Who executes the guest's instructions."""

    TCG = "tcg"
    KVM = "kvm"

    @property
    def domain_type(self) -> str:
        """Libvirt's word for it in <domain type=…>."""
        return "kvm" if self is Accel.KVM else "qemu"


class Devices(enum.StrEnum):
    """Which kind of hardware the guest is shown."""

    EMULATED = "emulated"
    VIRTIO = "virtio"


class Mode(enum.StrEnum):
    """A named cell of the table accel x devices."""

    FULL = "full"
    HARDWARE = "hardware"
    PARAVIRT = "paravirt"
    TCG_VIRTIO = "tcg-virtio"

    @property
    def accel(self) -> Accel:
        """The mode's accelerator."""
        return Accel.KVM if self in (Mode.HARDWARE, Mode.PARAVIRT) else Accel.TCG

    @property
    def devices(self) -> Devices:
        """The mode's kind of devices."""
        return Devices.VIRTIO if self in (Mode.PARAVIRT, Mode.TCG_VIRTIO) else Devices.EMULATED

    @classmethod
    def of(cls, accel: Accel, devices: Devices) -> Mode:
        """Return the mode that stands in this cell."""
        return next(mode for mode in cls if (mode.accel, mode.devices) == (accel, devices))


class Firmware(enum.StrEnum):
    """What the machine starts with."""

    BIOS = "bios"
    UEFI = "uefi"
    UEFI_SECURE = "uefi-secure"


class NicKind(enum.StrEnum):
    """What a network card is plugged into."""

    USER = "user"
    NAT = "nat"
    ISOLATED = "isolated"
    BRIDGE = "bridge"


class Display(enum.StrEnum):
    """Whether there is a screen, and how to reach it."""

    NONE = "none"
    VNC = "vnc"


class DiskFormat(enum.StrEnum):
    """Disk image formats that vmctl opens; always declared, never probed."""

    QCOW2 = "qcow2"
    RAW = "raw"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A read-only base: a disk, or a kernel with its initramfs, or both.

    `digest` is the sha256 (hex) of the content; empty while the image is not in the store, and then
    the paths are where it would lie. `drivers` says what the kernel can drive (virtio, ahci, ide,
    e1000, e1000e). `size` is the virtual size of the disk in bytes.
    """

    name: str
    digest: str = ""
    disk: str = ""
    disk_format: DiskFormat = DiskFormat.QCOW2
    size: int = 0
    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""
    drivers: frozenset[str] = frozenset()
    ready_pattern: str = ""
    ready_timeout: float = 0.0
    agent: bool = False
    login: str = ""

    @property
    def present(self) -> bool:
        """True when the image is in the store."""
        return bool(self.digest)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk of the machine's own; `size` in bytes, `keep` survives `down`.

    `base` is the read-only image below the overlay, empty for a disk that begins blank.
    `direct` says that the host's page cache is bypassed (O_DIRECT), `aio` which interface QEMU
    uses for it.
    """

    name: str
    file: str
    size: int
    format: DiskFormat = DiskFormat.QCOW2
    base: str = ""
    base_format: DiskFormat = DiskFormat.QCOW2
    keep: bool = False
    direct: bool = False
    aio: str = "threads"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A network card; `bridge` is the host's bridge, `address` a fixed IPv4 address."""

    kind: NicKind
    mac: str
    network: str = ""
    bridge: str = ""
    address: str = ""
    vhost: bool = False
    queues: int = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A TCP or UDP port of the host that leads to one of the guest."""

    host: int
    guest: int
    host_address: str = "127.0.0.1"
    protocol: str = "tcp"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """When the machine counts as ready; `timeout` in seconds, TCG's patience already applied."""

    when: str = "running"
    pattern: str = ""
    timeout: float = 120.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One virtual machine with every default filled in; sizes in bytes.

    `why` says how the mode was chosen; it is told to the user and is no part of what the machine is.
    """

    name: str
    project: str
    uuid: str
    mode: Mode
    cpus: int
    cpus_max: int
    memory: int
    memory_max: int
    ready: Ready
    console_log: str
    description: str = ""
    nested: bool = False
    firmware: Firmware = Firmware.BIOS
    tpm: bool = False
    nvram: str = ""
    image: Image | None = None
    disks: tuple[Disk, ...] = ()
    cdroms: tuple[str, ...] = ()
    boot_order: tuple[str, ...] = ()
    nics: tuple[Nic, ...] = ()
    forwards: tuple[Forward, ...] = ()
    display: Display = Display.NONE
    autostart: bool = False
    needs: tuple[str, ...] = ()
    vsock: bool = False
    why: str = dataclasses.field(default="", compare=False)

    @property
    def accel(self) -> Accel:
        """The mode's accelerator."""
        return self.mode.accel

    @property
    def devices(self) -> Devices:
        """The mode's kind of devices."""
        return self.mode.devices

    @property
    def virtio(self) -> bool:
        """True where the devices are paravirtual."""
        return self.mode.devices is Devices.VIRTIO

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        data = dataclasses.asdict(self)
        if self.image is not None:
            data["image"]["drivers"] = sorted(self.image.drivers)
        return data

    @property
    def digest(self) -> str:
        """Sha256 (hex) over all that the machine is; equal machines have equal digests."""
        data = self.as_dict()
        del data["why"]
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
