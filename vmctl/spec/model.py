"""The keys of a spec: what may be written for one machine, and what it means.

The descriptions end up in `docs/spec.md` and in the JSON Schema. There are no unions, so that a
problem always leads to the line it stands on; rules that need more than one key are in `checks`.
"""

from __future__ import annotations

import enum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from vmctl.spec import scalars

MOST_MACHINES = 1000

_GIB = 1 << 30


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


class Protocol(enum.StrEnum):
    """What is forwarded."""

    TCP = "tcp"
    UDP = "udp"


class ReadyWhen(enum.StrEnum):
    """What makes a machine count as ready."""

    CONSOLE = "console"
    RUNNING = "running"


class Firmware(enum.StrEnum):
    """What the machine starts with."""

    BIOS = "bios"
    UEFI = "uefi"
    UEFI_SECURE = "uefi-secure"


class Display(enum.StrEnum):
    """Whether there is a screen."""

    NONE = "none"
    VNC = "vnc"


class Strict(BaseModel):
    """A mapping of a spec: no unknown keys, and unchanged once it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    example: ClassVar[str] = ""
    """How such a mapping is written."""
    later: ClassVar[frozenset[str]] = frozenset()
    """Keys that are planned, and refused by name until they work."""
    synonyms: ClassVar[dict[str, str]] = {}
    """What other tools call a key, and what it is called here."""


class ImageSpec(Strict):
    """The read-only base of a machine's root disk: a name, or a file of the user's own."""

    example: ClassVar[str] = "{path: ./disk.qcow2, format: qcow2}"
    later: ClassVar[frozenset[str]] = frozenset({"url", "sha256"})
    synonyms: ClassVar[dict[str, str]] = {"file": "path", "type": "format", "location": "path"}

    name: scalars.ImageName = Field(
        default="", description="An image of the store, as `vmctl image list` shows it."
    )
    path: scalars.FilePath = Field(default="", description="A disk image beside the spec.")
    format: DiskFormat | None = Field(
        default=None, description="Format of the file at `path`; it is never guessed."
    )


class DiskSpec(Strict):
    """A disk of the machine's own, besides the root disk; it begins blank."""

    example: ClassVar[str] = "{name: data, size: 10GiB}"
    synonyms: ClassVar[dict[str, str]] = {"capacity": "size", "persistent": "keep"}

    name: scalars.Label = Field(description="Name, unique within the machine.")
    size: scalars.DiskSize = Field(description="Size; a disk grows, and never shrinks.")
    keep: scalars.Truth = Field(
        default=False, description="Whether the disk survives `vmctl down`."
    )


class NetworkSpec(Strict):
    """A network card and what it is plugged into."""

    example: ClassVar[str] = "{kind: user}"
    synonyms: ClassVar[dict[str, str]] = {"type": "kind", "mac_address": "mac", "ip": "address"}

    kind: NetworkKind = Field(
        default=NetworkKind.USER,
        description="`user`: out through the host, needs no rights; `nat`: vmctl's own network, "
        "machines see each other and the host; `isolated`: the same without a way out; "
        "`bridge`: a bridge of the host.",
    )
    mac: scalars.MacAddress = Field(
        default="",
        description="MAC address; default: made from the project and the machine's name.",
    )
    address: scalars.Address = Field(
        default="", description="Fixed IPv4 address, on `nat` and `isolated` networks."
    )
    bridge: scalars.Interface = Field(
        default="", description="The host's bridge, with `kind: bridge`."
    )


class ForwardSpec(Strict):
    """A port of the host that leads to one of the guest, over the `user` network."""

    example: ClassVar[str] = "{host: 8080, guest: 80}"
    synonyms: ClassVar[dict[str, str]] = {
        "host_port": "host",
        "guest_port": "guest",
        "host_ip": "host_address",
        "proto": "protocol",
    }

    host: scalars.Port = Field(description="Port of the host.")
    guest: scalars.Port = Field(description="Port of the guest.")
    host_address: scalars.Address = Field(
        default="127.0.0.1", description="The host's address to listen on; `0.0.0.0` for all."
    )
    protocol: Protocol = Field(default=Protocol.TCP, description="What is forwarded.")


class ReadySpec(Strict):
    """When the machine counts as ready; `vmctl up` waits for it."""

    example: ClassVar[str] = "{pattern: 'login:', timeout: 2m}"

    when: ReadyWhen | None = Field(
        default=None,
        description="`console`: a line of the serial console matches; `running`: at once. "
        "Default: what the image says; with a `pattern`, `console`.",
    )
    pattern: scalars.Pattern = Field(
        default="", description="Regular expression for the console; default: the image's own."
    )
    timeout: scalars.Duration | None = Field(
        default=None, description="How long to wait, under KVM; ten times as long under TCG."
    )


class MachineSpec(Strict):
    """One machine as the user wants it: base, file, defaults, its own entry and --set in one."""

    example: ClassVar[str] = "{image: tiny, memory: 1GiB}"
    later: ClassVar[frozenset[str]] = frozenset(
        {
            "cloud_init",
            "env",
            "hostname",
            "mounts",
            "provision",
            "resources",
            "snapshots",
            "ssh_keys",
            "user",
            "user_data",
        }
    )
    synonyms: ClassVar[dict[str, str]] = {
        "boot": "boot_order",
        "cdrom": "cdroms",
        "cores": "cpus",
        "cpu": "cpus",
        "depends_on": "needs",
        "disk_size": "disk",
        "graphics": "display",
        "interfaces": "networks",
        "iso": "cdroms",
        "maxmem": "memory_max",
        "mem": "memory",
        "network": "networks",
        "nics": "networks",
        "os": "image",
        "port_forwards": "forwards",
        "ports": "forwards",
        "ram": "memory",
        "replicas": "count",
        "vcpu": "cpus",
        "vcpus": "cpus",
        "virtualization": "mode",
    }

    name: scalars.Label = Field(
        default="",
        description="Name of the machine, unique on the connection; default: the project's name. "
        "Under `vms` the key is the name.",
    )
    description: scalars.Description = Field(default="", description="One line for people.")
    mode: Mode = Field(
        default=Mode.AUTO,
        description="`full`: everything emulated; `hardware`: KVM with emulated devices; "
        "`paravirt`: KVM with virtio devices; `auto`: the fastest that this host and the image "
        "can do. A mode asked for by name is never silently changed.",
    )
    accel: Accel | None = Field(
        default=None,
        description="Who executes the guest's instructions; pins one half of `mode: auto`.",
    )
    devices: Devices | None = Field(
        default=None,
        description="Which devices the guest is shown; pins the other half of `mode: auto`.",
    )
    image: ImageSpec | None = Field(
        default=None, description="A name from `vmctl image list`, or a file: `{path:, format:}`."
    )
    cpus: scalars.Cpus = Field(default=1, description="Virtual CPUs.")
    cpus_max: scalars.Cpus | None = Field(
        default=None, description="Room for more CPUs while it runs; default: `cpus`."
    )
    memory: scalars.Memory = Field(
        default=_GIB, description="Main memory.", json_schema_extra={"default": "1GiB"}
    )
    memory_max: scalars.Memory | None = Field(
        default=None, description="Room for more memory while it runs; default: `memory`."
    )
    disk: scalars.DiskSize | None = Field(
        default=None,
        description="Size of the root disk; default: the image's. Without an image, a blank disk.",
    )
    disks: tuple[DiskSpec, ...] = Field(default=(), max_length=16, description="More disks.")
    cdroms: tuple[scalars.FilePath, ...] = Field(
        default=(), max_length=4, description="ISO images, beside the spec."
    )
    boot_order: tuple[scalars.Label, ...] = Field(
        default=(),
        max_length=24,
        description="What to start from, first choice first: `disk` (the root disk), `cdrom`, "
        "`network`, or the name of a disk. Default: root disk, then CD-ROMs.",
    )
    networks: tuple[NetworkSpec, ...] = Field(
        default=(NetworkSpec(),),
        max_length=8,
        description="Network cards; default: one of `kind: user`; `[]` for none.",
        json_schema_extra={"default": [{"kind": "user"}]},
    )
    forwards: tuple[ForwardSpec, ...] = Field(
        default=(), max_length=128, description="Ports of the host that lead into the guest."
    )
    nested: scalars.Truth = Field(
        default=False,
        description="Whether the guest gets VT-x or AMD-V and can run virtual machines itself.",
    )
    ready: ReadySpec | None = Field(
        default=None, description="When the machine counts as ready; default: what the image says."
    )
    firmware: Firmware = Field(
        default=Firmware.BIOS,
        description="Firmware; `uefi-secure` has Secure Boot on, `uefi` has it off.",
    )
    tpm: scalars.Truth = Field(
        default=False, description="Whether there is a TPM 2.0; needs swtpm."
    )
    display: Display = Field(
        default=Display.NONE, description="`vnc`: a screen on a port of the loopback interface."
    )
    autostart: scalars.Truth = Field(
        default=False, description="Whether the machine starts together with the host's libvirt."
    )
    count: scalars.Count | None = Field(
        default=None, description="Makes so many machines: name-1, name-2, …"
    )
    needs: tuple[scalars.Label, ...] = Field(
        default=(),
        max_length=MOST_MACHINES,
        description="Machines of the same file that must be ready before this one starts.",
    )


FILE_KEYS: dict[str, str] = {
    "project": "Name of all machines of the file together; default: made from the name of the "
    "directory that the file lies in.",
    "base": "Another spec, beside this one, to begin with; what is written here is laid over it.",
    "defaults": "What all machines under `vms` have in common.",
    "vms": "Several machines: the keys are their names.",
}
"""The keys that stand at the top of a file only."""

REPLACED_WHOLE = frozenset({"image"})
"""Mappings that a later layer replaces instead of adding to them."""

LATER_VALUES: dict[str, frozenset[str]] = {"when": frozenset({"agent", "ssh", "cloud-init"})}
"""Values that are planned, by key."""
