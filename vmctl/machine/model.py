"""What will run: one virtual machine with every default filled in. Frozen and serialisable."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from typing import Any

from vmctl.machine.limits import NO_LIMITS, Limits
from vmctl.machine.payload import Payload


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


class Chipset(enum.StrEnum):
    """The mainboard; libvirt freezes it to a versioned machine type at the first define."""

    Q35 = "q35"
    PC = "pc"


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
    NETWORK = "network"


class Display(enum.StrEnum):
    """Whether there is a screen, and how to reach it."""

    NONE = "none"
    VNC = "vnc"


class DiskFormat(enum.StrEnum):
    """Disk image formats that vmctl opens; always declared, never probed."""

    QCOW2 = "qcow2"
    RAW = "raw"


def _aside(default: Any) -> Any:
    """Return a field that is told to people but is no part of what the machine is."""
    return dataclasses.field(default=default, compare=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A read-only base: a disk, or a kernel with its initramfs, or both.

    `digest` is the sha256 (hex) of the content; empty while the image is not in the store, and then
    the paths are where it would lie. `efi_kernel` is the same kernel in the form that UEFI firmware
    starts (bzImage), where `kernel` is another. `drivers` says what the kernel can drive (virtio,
    ahci, ide, e1000, e1000e). `size` is the virtual size of the disk, `memory`
    the least that a machine needs for it, both in bytes. `cloud_init` says that it reads a seed,
    `user` who logs in unless the spec says otherwise, `ready_when` how it is known to be ready,
    `boot` (kernel, disk) what starts it where both could. `container` says that it was made of a
    container image: its disk has no boot loader, and nothing in it reads a seed.
    """

    name: str
    digest: str = ""
    disk: str = ""
    disk_format: DiskFormat = DiskFormat.QCOW2
    kernel: str = ""
    efi_kernel: str = _aside("")
    initrd: str = ""
    cmdline: str = ""
    size: int = _aside(0)
    memory: int = _aside(0)
    drivers: frozenset[str] = _aside(frozenset())
    ready_pattern: str = _aside("")
    ready_timeout: float = _aside(0.0)
    agent: bool = _aside(False)
    login: str = _aside("")
    cloud_init: bool = _aside(False)
    user: str = _aside("")
    ready_when: str = _aside("")
    boot: str = _aside("")
    container: bool = _aside(False)

    @property
    def present(self) -> bool:
        """True when the image is in the store."""
        return bool(self.digest)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk of the machine's own; `size` in bytes, `keep` survives `down`.

    `base` is the read-only image below the overlay, empty for a disk that begins blank.
    `direct` says that the host's page cache is bypassed (O_DIRECT), `aio` which interface QEMU
    uses for it. `external` is a disk that existed before the machine: it is used as it is, and
    never made, resized or removed; its size is not told (0).
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
    external: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A network card; `bridge` is the host's bridge, `address` a fixed IPv4 address.

    On a bridge the address has its prefix (192.168.1.10/24), and `gateway` and `dns` go with it.
    """

    kind: NicKind
    mac: str
    model: str
    network: str = ""
    bridge: str = ""
    address: str = ""
    gateway: str = ""
    dns: tuple[str, ...] = ()
    vhost: bool = False
    queues: int = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A TCP or UDP port of the host that leads to one of the guest."""

    host: int
    guest: int
    host_address: str = "127.0.0.1"
    protocol: str = "tcp"


class Share(enum.StrEnum):
    """How a directory of the host reaches the guest; also the file system's name in the guest."""

    NINE_P = "9p"
    VIRTIOFS = "virtiofs"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory of the host that the guest has at `guest`; both are absolute, links followed."""

    host: str
    guest: str
    writable: bool = False
    share: Share = Share.NINE_P

    @property
    def tag(self) -> str:
        """What the guest knows the device by: the same for as long as the place stays the same."""
        return f"vmctl-{hashlib.sha256(self.guest.encode()).hexdigest()[:12]}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """When the machine counts as ready; `timeout` in seconds, TCG's patience already applied."""

    when: str = "running"
    pattern: str = ""
    timeout: float = 120.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One virtual machine with every default filled in; sizes in bytes.

    `uuid` is the one that a new domain gets; an existing one keeps its own. `host_cpu` is the
    virtualization flag (vmx or svm) that is hidden or given. `qemu_owner` is the +uid:+gid of
    QEMU's own user where vmctl owns the files itself, empty where libvirt changes their owner.
    `user` is who logs in, empty where vmctl knows no way in; `seed` the file that cloud-init reads.
    `ssh_keys`, `cloud_init`, `user_data` and `provision` are digests (sha256, hex) of what the spec
    says, empty where it says nothing; the contents are in `payload`, which is None in a machine
    that was read back. `why` says how the mode was chosen, `fallback` that it is less than the host
    could have offered, `remedy` what to do about that.
    `adopted` says that the domain was made by others, who know nothing of vmctl's handles.
    `snapshot_before_up` says that `up` takes a snapshot before it changes the machine, and
    `snapshots_kept` how many of those stay.
    """

    name: str
    project: str
    uuid: str = dataclasses.field(compare=False)
    mode: Mode
    chipset: Chipset
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
    mounts: tuple[Mount, ...] = ()
    hostname: str = ""
    user: str = ""
    seed: str = ""
    ssh_keys: str = ""
    cloud_init: str = ""
    user_data: str = ""
    provision: str = ""
    display: Display = Display.NONE
    autostart: bool = False
    needs: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS
    vsock: bool = False
    host_cpu: str = ""
    emulator: str = "/usr/bin/qemu-system-x86_64"
    qemu_owner: str = ""
    why: str = _aside("")
    fallback: bool = _aside(False)
    remedy: str = _aside("")
    adopted: bool = _aside(False)
    snapshot_before_up: bool = _aside(False)
    snapshots_kept: int = _aside(5)
    payload: Payload | None = dataclasses.field(default=None, compare=False, repr=False)

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
        """Return all of it as plain data, for JSON."""
        data = _plain(self)
        assert isinstance(data, dict)
        return data

    @property
    def digest(self) -> str:
        """Sha256 (hex) over all that the machine is; equal machines have equal digests."""
        text = json.dumps(_plain(self, everything=False), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


_UNTOLD = "payload"
"""The field of a machine that goes into no output: it holds secrets."""


def _telling(field: dataclasses.Field[Any], value: Any) -> bool:
    """Tell whether a field goes into the digest.

    Defaults do not: a later vmctl, whose machines have more fields, still knows those of this one.
    """
    return field.compare and value != field.default


def _plain(value: Any, *, everything: bool = True) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name), everything=everything)
            for field in dataclasses.fields(value)
            if field.name != _UNTOLD and (everything or _telling(field, getattr(value, field.name)))
        }
    if isinstance(value, (tuple, frozenset)):
        items = [_plain(item, everything=everything) for item in value]
        return sorted(items) if isinstance(value, frozenset) else items
    return value
