"""The keys of a spec: what may be written for one machine, and what it means.

The descriptions end up in `docs/spec.md` and in the JSON Schema. There are no unions, so that a
problem always leads to the line it stands on; rules that need more than one key are in `checks`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from vmctl.spec import guest_scalars, scalars
from vmctl.spec.choices import (
    Accel,
    Boot,
    Chipset,
    Devices,
    DiskFormat,
    Display,
    Firmware,
    Mode,
    NetworkKind,
    Protocol,
    ReadyWhen,
)
from vmctl.spec.resources import ResourcesSpec
from vmctl.spec.strict import Strict

MOST_MACHINES = 1000

_GIB = 1 << 30


class ImageSpec(Strict):
    """The read-only base of a machine's root disk: a name, a file of the user's own, an address."""

    example: ClassVar[str] = "{path: ./disk.qcow2, format: qcow2}"
    synonyms: ClassVar[dict[str, str]] = {
        "file": "path",
        "type": "format",
        "location": "path",
        "uri": "url",
        "digest": "sha256",
        "checksum": "sha256",
    }

    name: scalars.ImageName = Field(
        default="", description="An image of the store, as `vmctl image list` shows it."
    )
    path: scalars.FilePath = Field(default="", description="A disk image beside the spec.")
    url: scalars.Url = Field(
        default="", description="The address of a disk image; `http://` will do, `sha256` is known."
    )
    sha256: scalars.Sha256 = Field(
        default="",
        description="What the file at `url` must be; `vmctl image pull URL` prints it.",
    )
    format: DiskFormat | None = Field(
        default=None, description="Format of the file at `path` or `url`; it is never guessed."
    )


class DiskSpec(Strict):
    """A disk besides the root disk: the machine's own, which begins blank, or one that exists."""

    example: ClassVar[str] = "{name: data, size: 10GiB}"
    synonyms: ClassVar[dict[str, str]] = {
        "capacity": "size",
        "file": "path",
        "persistent": "keep",
        "source": "path",
        "type": "format",
    }

    name: scalars.Label = Field(description="Name, unique within the machine.")
    size: scalars.DiskSize | None = Field(
        default=None, description="Size of a disk of its own; it grows, and never shrinks."
    )
    path: scalars.FilePath = Field(
        default="",
        description="A disk that exists, in place of `size`: used as it is, written to by the "
        "guest, and never made, resized or removed by vmctl. Below `/dev`: a block device.",
    )
    format: DiskFormat | None = Field(
        default=None, description="Format of the disk at `path`; it is never guessed."
    )
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
        "`bridge`: a bridge of the host; `network`: a network of libvirt's that is not vmctl's.",
    )
    mac: scalars.MacAddress = Field(
        default="",
        description="MAC address; default: made from the project and the machine's name.",
    )
    address: scalars.AddressAndPrefix = Field(
        default="",
        description="Fixed IPv4 address, on `nat` and `isolated` networks; on a `bridge` with its "
        "prefix, as 192.168.1.10/24, and with an image that reads cloud-init.",
    )
    gateway: scalars.Address = Field(
        default="", description="The way out, beside a fixed address on a `bridge`."
    )
    dns: tuple[scalars.Address, ...] = Field(
        default=(), max_length=3, description="Name servers, beside a fixed address on a `bridge`."
    )
    bridge: scalars.Interface = Field(
        default="", description="The host's bridge, with `kind: bridge`."
    )
    network: scalars.ImageName = Field(
        default="", description="Libvirt's network, with `kind: network`; `default` for one."
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


class MountSpec(Strict):
    """A directory of the host that the guest sees."""

    example: ClassVar[str] = "{host: ./src, guest: /src}"
    synonyms: ClassVar[dict[str, str]] = {
        "source": "host",
        "location": "host",
        "target": "guest",
        "mountPoint": "guest",
        "mount_point": "guest",
        "rw": "writable",
    }

    host: scalars.FilePath = Field(description="A directory beside the spec.")
    guest: guest_scalars.GuestPath = Field(description="Where the guest has it; an absolute path.")
    writable: scalars.Truth = Field(default=False, description="Whether the guest may write to it.")


class ProvisionSpec(Strict):
    """A step that is carried out in the guest once it is ready, over ssh."""

    example: ClassVar[str] = "{run: ./setup.sh}"
    synonyms: ClassVar[dict[str, str]] = {
        "file": "run",
        "path": "run",
        "inline": "script",
        "shell": "script",
        "environment": "env",
    }

    run: scalars.FilePath = Field(
        default="", description="A script beside the spec; its first line says what runs it."
    )
    script: guest_scalars.Script = Field(
        default="", description="The script itself, run by `/bin/sh -e`, or by what its `#!` names."
    )
    name: scalars.Description = Field(default="", description="What people are shown.")
    user: guest_scalars.UserName = Field(default="root", description="Who runs it in the guest.")
    env: guest_scalars.Variables = Field(
        default={}, description="Environment variables; their values are kept as secrets."
    )
    timeout: scalars.Duration | None = Field(
        default=None,
        description="How long it may take, under KVM; ten times as long under TCG. Default: 30m.",
    )
    reboot: scalars.Truth = Field(
        default=False,
        description="Whether the guest is restarted when the step is done, before the next one.",
    )


class ReadySpec(Strict):
    """When the machine counts as ready; `vmctl up` waits for it."""

    example: ClassVar[str] = "{pattern: 'login:', timeout: 2m}"

    when: ReadyWhen | None = Field(
        default=None,
        description="`console`: a line of the serial console matches; `ssh`: a login over ssh "
        "works; `cloud-init`: it has finished, without errors; `agent`: QEMU's guest agent "
        "answers; `running`: at once. Default: with a `pattern`, `console`; with `cloud_init` or "
        "`user_data`, `cloud-init`; else what the image says.",
    )
    pattern: scalars.Pattern = Field(
        default="", description="Regular expression for the console; default: the image's own."
    )
    timeout: scalars.Duration | None = Field(
        default=None, description="How long to wait, under KVM; ten times as long under TCG."
    )


class SnapshotsSpec(Strict):
    """Snapshots that vmctl takes by itself."""

    example: ClassVar[str] = "{before_up: true, keep: 5}"

    before_up: scalars.Truth = Field(
        default=False, description="Whether `up` takes one before it changes the machine."
    )
    keep: scalars.Count = Field(
        default=5, description="How many of them stay; the oldest one goes."
    )


class MachineSpec(Strict):
    """One machine as the user wants it: base, file, defaults, its own entry and --set in one."""

    example: ClassVar[str] = "{image: tiny, memory: 1GiB}"
    later: ClassVar[frozenset[str]] = frozenset({"env"})
    synonyms: ClassVar[dict[str, str]] = {
        "authorized_keys": "ssh_keys",
        "cdrom": "cdroms",
        "cloud_config": "cloud_init",
        "cores": "cpus",
        "cpu": "cpus",
        "depends_on": "needs",
        "disk_size": "disk",
        "graphics": "display",
        "interfaces": "networks",
        "iso": "cdroms",
        "limits": "resources",
        "maxmem": "memory_max",
        "mem": "memory",
        "network": "networks",
        "nics": "networks",
        "os": "image",
        "port_forwards": "forwards",
        "ports": "forwards",
        "ram": "memory",
        "replicas": "count",
        "ssh_authorized_keys": "ssh_keys",
        "userdata": "user_data",
        "username": "user",
        "volumes": "mounts",
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
        default=None,
        description="A name from `vmctl image list`, a file: `{path:, format:}`, or an address: "
        "`{url:, sha256:, format:}`.",
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
    hostname: guest_scalars.Hostname = Field(
        default="", description="The guest's name for itself; default: the machine's name."
    )
    user: guest_scalars.UserName = Field(
        default="",
        description="Who logs in, over ssh with the machine's own key, and may use sudo; default: "
        "what the image says, else `vmctl`.",
    )
    ssh_keys: tuple[guest_scalars.SshKey, ...] = Field(
        default=(),
        max_length=100,
        description="More public keys that let `user` in: the keys, or files beside the spec.",
    )
    cloud_init: guest_scalars.CloudConfig | None = Field(
        default=None,
        description="A #cloud-config, laid over what vmctl generates: lists are added to it.",
    )
    user_data: scalars.FilePath = Field(
        default="",
        description="A file beside the spec that cloud-init gets byte for byte, in place of "
        "`cloud_init`.",
    )
    mounts: tuple[MountSpec, ...] = Field(
        default=(), max_length=16, description="Directories of the host that the guest sees."
    )
    provision: tuple[ProvisionSpec, ...] = Field(
        default=(), max_length=64, description="Steps in the guest, in order, when it is ready."
    )
    nested: scalars.Truth = Field(
        default=False,
        description="Whether the guest gets VT-x or AMD-V and can run virtual machines itself.",
    )
    resources: ResourcesSpec | None = Field(
        default=None, description="What of the host the machine may take; default: no limits."
    )
    ready: ReadySpec | None = Field(
        default=None, description="When the machine counts as ready; default: what the image says."
    )
    boot: Boot | None = Field(
        default=None,
        description="`kernel`: QEMU loads the image's kernel itself; `disk`: the boot loader on "
        "the disk does. Default: what the image says.",
    )
    chipset: Chipset | None = Field(
        default=None,
        description="Mainboard: `q35` has PCI Express and AHCI, `pc` (i440FX) has IDE. Default: "
        "`q35`, or what the image has drivers for.",
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
    snapshots: SnapshotsSpec | None = Field(
        default=None, description="Snapshots that vmctl takes by itself; default: before a restore."
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

FREE_KEYS = frozenset({"cloud_init"})
"""Keys whose value is free: what is in it is another program's business."""

LATER_VALUES: dict[str, frozenset[str]] = {}
"""Values that are planned, by key."""
