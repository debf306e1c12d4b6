"""What is known about this host: plain facts, no opinions. Frozen, and the same again from JSON."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Mapping
from typing import Any

from vmctl.host import decode


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The processor; of its flags only those that matter to virtualization, sorted."""

    vendor: str = ""
    model: str = ""
    flags: tuple[str, ...] = ()
    count: int = 0

    @property
    def intel(self) -> bool:
        """True where the extension would be VT-x (Intel, and VIA and Zhaoxin that follow it)."""
        return "vmx" in self.flags or self.vendor in {"GenuineIntel", "CentaurHauls"}

    @property
    def extension(self) -> str:
        """The virtualization flag that is there: vmx, svm or ''."""
        return next((flag for flag in ("vmx", "svm") if flag in self.flags), "")

    @property
    def hypervisor(self) -> bool:
        """True where the processor says that a hypervisor is below."""
        return "hypervisor" in self.flags


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """The fields of os-release(5) that name a distribution."""

    id: str = ""
    id_like: tuple[str, ...] = ()
    version: str = ""
    name: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AclEntry:
    """One entry of a POSIX ACL: tag as in linux/posix_acl.h, `id` of a user or group."""

    tag: int
    id: int
    permissions: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """A node in /dev; `errno` is what open(2) for reading and writing said, 0 when it opened."""

    path: str = ""
    present: bool = False
    character: bool = False
    mode: int = 0
    uid: int = 0
    gid: int = 0
    owner: str = ""
    group: str = ""
    acl: tuple[AclEntry, ...] = ()
    errno: int = 0
    device: int = 0
    ctime_ns: int = 0

    @property
    def openable(self) -> bool:
        """True when this process could open it for reading and writing."""
        return self.present and self.character and self.errno == 0

    @property
    def permissions(self) -> str:
        """The mode as `ls -l` shows it, with owner and group."""
        kind = stat.S_IFCHR if self.character else stat.S_IFREG
        return f"{stat.filemode(kind | self.mode)} {self.owner}:{self.group}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProbeCase:
    """One piece of guest code of the probe and what came of it."""

    name: str
    passed: bool
    milliseconds: float = 0.0
    detail: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What the probe of /dev/kvm found; `error` is set when it could not be carried out."""

    cases: tuple[ProbeCase, ...] = ()
    seconds: float = 0.0
    error: str = ""
    timed_out: bool = False
    cached: bool = False

    @property
    def passed(self) -> bool:
        """True when every case passed."""
        return not self.error and bool(self.cases) and all(case.passed for case in self.cases)

    @property
    def failures(self) -> str:
        """What failed, in a few words."""
        failed = [case.name for case in self.cases if not case.passed]
        return self.error or f"these failed: {', '.join(failed)}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NestedCpuid:
    """What KVM offers its guests (KVM_GET_SUPPORTED_CPUID and KVM_CHECK_EXTENSION)."""

    vmx: bool = False
    svm: bool = False
    nested_state: int = 0
    smm: bool = False
    hyperv: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who runs vmctl: the groups this process has, and those that the database would give anew."""

    uid: int = 0
    name: str = ""
    groups: tuple[str, ...] = ()
    groups_in_database: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QemuUser:
    """The account that QEMU runs as under qemu:///system; `gids` is all of its groups."""

    name: str = ""
    uid: int = 0
    gid: int = 0
    gids: tuple[int, ...] = ()
    groups: tuple[str, ...] = ()
    opens_kvm: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Msr:
    """Model-specific registers that say whether firmware switched virtualization off."""

    feature_control: int | None = None
    vm_cr: int | None = None

    @property
    def says_disabled(self) -> bool:
        """IA32_FEATURE_CONTROL locked without VMX, or VM_CR with SVMDIS set."""
        control = self.feature_control
        locked_off = control is not None and bool(control & 1) and not control & 4
        return locked_off or bool((self.vm_cr or 0) & 0x10)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cgroups:
    """Control groups that machines can be put into.

    `versions` has 1 or 2 for each of cpu, cpuset, memory and blkio (version 2's `io`) that can be
    written to; `processors` the ones that may be handed out, as 0-3,8.
    """

    versions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    processors: str = ""

    @property
    def unified(self) -> bool:
        """True where the CPU is shared by cgroup v2: weights, not shares."""
        return self.versions.get("cpu") == 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """Everything vmctl looked at on this host.

    `virtual` names the hypervisor that this host runs under and is '' on bare metal; `modules` are
    the kernel modules of interest that are there, `parameters` theirs ('kvm_intel.nested': 'Y');
    `programs` maps names to paths; `firmware` holds 'uefi' and 'uefi-secure' where OVMF has them;
    `kernel_log` holds the lines about virtualization. `kvm_api`, `create_vm_errno` and
    `nested_cpuid` are None where /dev/kvm could not be asked, `create_vm_errno` is 0 for success.
    `memory_locking` says that libvirt could be allowed to say how much memory QEMU may lock.
    Sizes are in bytes.
    """

    architecture: str = ""
    cpu: Cpu = Cpu()
    kernel: str = ""
    distribution: Distribution = Distribution()
    container: str = ""
    virtual: str = ""
    wsl: bool = False
    memory_total: int = 0
    modules: tuple[str, ...] = ()
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kernel_log: tuple[str, ...] = ()
    msr: Msr = Msr()
    kvm_node: DeviceNode = DeviceNode()
    kvm_api: int | None = None
    create_vm_errno: int | None = None
    nested_cpuid: NestedCpuid | None = None
    probe: ProbeResult | None = None
    vhost_net: bool = False
    vhost_vsock: bool = False
    tun: bool = False
    user: User = User()
    qemu_user: QemuUser | None = None
    emulator: str = ""
    programs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    firmware: tuple[str, ...] = ()
    umask: int = 0o022
    cgroups: Cgroups = dataclasses.field(default_factory=Cgroups)
    memory_locking: bool = False

    @property
    def x86_64(self) -> bool:
        """True on the one architecture vmctl supports."""
        return self.architecture == "x86_64"

    @property
    def kvm_module(self) -> str:
        """The vendor module that this processor wants."""
        return "kvm_intel" if self.cpu.intel else "kvm_amd"

    @property
    def emulated(self) -> bool:
        """True where QEMU emulates this host's own processor (TCG): all of it is slow."""
        return self.virtual == "qemu"

    @property
    def tpm(self) -> bool:
        """True when both programs that an emulated TPM takes are there."""
        return {"swtpm", "swtpm_setup"} <= set(self.programs)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> HostFacts:
        """Return the facts that `as_dict` made plain; raises ValueError for anything else."""
        return decode.decode(cls, data)
