"""Decides from facts whether KVM can be used, and why not. Pure; the first rule that fits wins."""

from __future__ import annotations

import dataclasses
import enum
import errno
import os
from collections.abc import Callable

from vmctl.host import kvm, processor, remedy
from vmctl.host.facts import HostFacts


class Code(enum.StrEnum):
    """Why KVM, or nesting, can or cannot be used; stable, for programs."""

    USABLE = "usable"
    UNPROBED = "unprobed"
    ARCHITECTURE = "architecture"
    FORBIDDEN = "forbidden"
    GROUP_NOT_ACTIVE = "group-not-active"
    REFUSED_TO_QEMU = "refused-to-qemu"
    CONTAINER = "container"
    NOT_A_DEVICE = "not-a-device"
    MODULE_NOT_LOADED = "module-not-loaded"
    NODE_MISSING = "node-missing"
    FIRMWARE_DISABLED = "firmware-disabled"
    NO_CPU_FEATURE = "no-cpu-feature"
    NO_NESTING_BELOW = "no-nesting-below"
    BUSY = "busy"
    BROKEN = "broken"
    SOFTWARE_KVM = "software-kvm"
    PROBE_FAILED = "probe-failed"
    PROBE_TIMED_OUT = "probe-timed-out"
    NESTED_KVM = "nested-kvm"
    NESTED_OFF = "nested-off"
    NESTED_HIDDEN = "nested-hidden"
    NESTED_TCG = "nested-tcg"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether something can be used; `cause` and `fix` are sentences, empty when all is well."""

    usable: bool
    code: str
    cause: str = ""
    fix: str = ""


FULL_MODE = "Use mode full or auto: they run without KVM."
_FOREIGN_MODULES = ("vboxdrv", "vmmon")
_PROBE = "Of the probe (64-bit code with SSE, cmpxchg16b, an exception, a timed loop)"


def kvm_verdict(facts: HostFacts, *, system: bool | None = None) -> Verdict:
    """Tell whether KVM runs ordinary guests here, else why not and what to do.

    `system` says that guests are started through qemu:///system, where QEMU has its own account;
    by default that is so for root.
    """
    through_daemon = facts.user.uid == 0 if system is None else system
    if through_daemon:
        refused = _refused_to_qemu(facts)
        if refused:
            return refused
    for rule in _RULES:
        verdict = rule(facts)
        if verdict:
            return verdict
    return _unprobed(facts)


def _no(code: Code, cause: str, fix: str) -> Verdict:
    return Verdict(usable=False, code=code, cause=cause, fix=fix)


def _architecture(facts: HostFacts) -> Verdict | None:
    if facts.x86_64:
        return None
    cause = f"vmctl runs on x86-64 only, and this host is '{facts.architecture}'."
    return _no(Code.ARCHITECTURE, cause, "Use an x86-64 host; nothing installed here changes this.")


def _works(facts: HostFacts) -> Verdict | None:
    if facts.probe and facts.probe.passed:
        return Verdict(usable=True, code=Code.USABLE)
    return None


def _refused_to_qemu(facts: HostFacts) -> Verdict | None:
    """KVM works for whoever asks here, and QEMU's own account would be turned away."""
    account, node = facts.qemu_user, facts.kvm_node
    works = facts.x86_64 and node.openable and facts.create_vm_errno == 0
    if account is None or account.opens_kvm or not works:
        return None
    if facts.probe and not facts.probe.passed:
        return None  # then permission is not what is missing
    cause = (
        f"QEMU runs as '{account.name}' under qemu:///system, and {node.path} "
        f"({node.permissions}) is closed to that account."
    )
    return _no(Code.REFUSED_TO_QEMU, cause, open_node_fix(facts))


def open_node_fix(facts: HostFacts) -> str:
    """Return the commands that open /dev/kvm to group kvm, now and at every boot."""
    path, account = facts.kvm_node.path, facts.qemu_user
    fix = (
        f"sudo chgrp kvm {path} && sudo chmod 660 {path}; keep it: "
        """echo 'KERNEL=="kvm", GROUP="kvm", MODE="0660"' | """
        "sudo tee /etc/udev/rules.d/65-kvm.rules"
    )
    if account and "kvm" not in account.groups:
        joining = remedy.Family.of(facts.distribution).join_group(account.name, "kvm")
        fix = f"{joining}; {fix}"
    return fix


def _forbidden(facts: HostFacts) -> Verdict | None:
    node, user = facts.kvm_node, facts.user
    if node.errno != errno.EACCES:
        return None
    family = remedy.Family.of(facts.distribution)
    has_group = node.mode & 0o060 == 0o060 and node.group != "root"
    if has_group and node.group in user.groups_in_database and node.group not in user.groups:
        return _no(
            Code.GROUP_NOT_ACTIVE,
            f"User '{user.name}' is in group '{node.group}', but this login began before that, so "
            f"{node.path} ({node.permissions}) is still closed to it.",
            f"Log out and in again, or for this shell: newgrp {node.group}",
        )
    cause = f"{node.path} ({node.permissions}) is closed to user '{user.name}'."
    if not facts.cpu.extension:
        cause += " Whether it works is open: the processor shows neither VT-x nor AMD-V."
    group = node.group if has_group else "kvm"
    fix = f"{family.join_group(user.name, group)}; then log out and in, or: newgrp {group}"
    if not has_group:
        fix = f"{open_node_fix(dataclasses.replace(facts, qemu_user=None))}; {fix}"
    return _no(Code.FORBIDDEN, cause, fix)


def _container(facts: HostFacts) -> Verdict | None:
    node = facts.kvm_node
    if node.errno == errno.EPERM:
        cause = (
            f"{node.path} ({node.permissions}) is there and may not be opened (EPERM): "
            "the device policy of a container forbids it."
        )
        return _no(Code.CONTAINER, cause, remedy.container_device(facts))
    loaded = {"kvm_intel", "kvm_amd"} & set(facts.modules)
    if facts.container and not node.present and loaded:
        cause = (
            f"This is a container ({facts.container}); its host has KVM, but {node.path} was not "
            "handed in."
        )
        return _no(Code.CONTAINER, cause, remedy.container_device(facts))
    return None


def _not_a_device(facts: HostFacts) -> Verdict | None:
    node = facts.kvm_node
    if not node.present or node.character:
        return None
    return _no(
        Code.NOT_A_DEVICE,
        f"'{node.path}' is not a character device.",
        f"sudo rm {node.path} && sudo udevadm trigger --name-match=kvm",
    )


def disabled_by_firmware(facts: HostFacts) -> str:
    """Return what shows that firmware switched VT-x or AMD-V off, '' where nothing does."""
    if facts.virtual or facts.cpu.hypervisor:
        return ""
    lines = [line for line in facts.kernel_log if processor.says_disabled(line)]
    if lines:
        return f"the kernel's log says '{lines[0]}'"
    if facts.msr.says_disabled:
        register = "IA32_FEATURE_CONTROL" if facts.cpu.intel else "VM_CR"
        return f"register {register} says so"
    return ""


def _module_not_loaded(facts: HostFacts) -> Verdict | None:
    node, module = facts.kvm_node, facts.kvm_module
    if not facts.cpu.extension or disabled_by_firmware(facts):
        return None
    absent = not node.present and module not in facts.modules
    static_node = node.errno in (errno.ENODEV, errno.ENXIO, errno.ENOENT)
    if not absent and not static_node:
        return None
    family = remedy.Family.of(facts.distribution)
    where = "On the container's host: " if facts.container else ""
    return _no(
        Code.MODULE_NOT_LOADED,
        f"The processor has {facts.cpu.extension}, but the kernel module {module} is not loaded.",
        f"{where}{family.load_module(module)}. If that is refused, look into: "
        "sudo dmesg | grep -i kvm; grep -r 'blacklist kvm' /etc/modprobe.d",
    )


def _firmware_disabled(facts: HostFacts) -> Verdict | None:
    evidence = disabled_by_firmware(facts)
    if facts.kvm_api is not None or not evidence:
        return None
    setting = "Intel Virtualization Technology (VT-x)" if facts.cpu.intel else "SVM Mode"
    return _no(
        Code.FIRMWARE_DISABLED,
        f"The firmware (BIOS) has switched {'VT-x' if facts.cpu.intel else 'AMD-V'} off: "
        f"{evidence}.",
        f"In the firmware's setup enable '{setting}', then power the machine off fully: a reboot "
        "is not enough. No software can do this.",
    )


def _no_extension(facts: HostFacts) -> Verdict | None:
    if facts.cpu.extension or facts.kvm_api is not None:
        return None
    if facts.virtual or facts.cpu.hypervisor:
        below = HYPERVISORS.get(facts.virtual, facts.virtual) or "an unnamed hypervisor"
        return _no(
            Code.NO_NESTING_BELOW,
            f"This host is a virtual machine under {below}, which does not pass on VT-x or AMD-V.",
            remedy.outer_nesting(facts),
        )
    return _no(
        Code.NO_CPU_FEATURE,
        "The processor shows neither VT-x (vmx) nor AMD-V (svm), and nothing says that firmware "
        "hides it.",
        f"{FULL_MODE} Look once into the firmware's setup for 'Virtualization' or 'SVM Mode'.",
    )


def _node_missing(facts: HostFacts) -> Verdict | None:
    node = facts.kvm_node
    if node.present and not node.errno:
        return None
    if node.present:
        cause = f"{node.path} cannot be opened: {os.strerror(node.errno)} (errno {node.errno})."
        return _no(Code.BROKEN, cause, f"Look into: sudo dmesg | grep -i kvm. {FULL_MODE}")
    return _no(
        Code.NODE_MISSING,
        f"The module {facts.kvm_module} is loaded, but '{node.path}' is not there.",
        f"sudo udevadm trigger --name-match=kvm, or: sudo mknod -m 660 {node.path} c 10 232 && "
        f"sudo chgrp kvm {node.path}",
    )


def _busy(facts: HostFacts) -> Verdict | None:
    if facts.create_vm_errno != errno.EBUSY:
        return None
    holder = next((module for module in _FOREIGN_MODULES if module in facts.modules), "")
    name = {"vboxdrv": "VirtualBox", "vmmon": "VMware"}.get(holder, "Another hypervisor")
    fix = {
        "vboxdrv": "Stop VirtualBox's guests, then: sudo systemctl stop vboxdrv; "
        "sudo modprobe -r vboxnetflt vboxnetadp vboxdrv",
        "vmmon": "Stop VMware's guests, then: sudo /etc/init.d/vmware stop",
    }.get(holder, "Find and stop it: lsmod | grep -E 'vbox|vmmon|vmnet'")
    cause = f"{name} holds VT-x or AMD-V: KVM_CREATE_VM failed with EBUSY."
    return _no(Code.BUSY, cause, fix)


def _broken(facts: HostFacts) -> Verdict | None:
    if facts.kvm_api != kvm.API_VERSION:
        cause = f"{facts.kvm_node.path} speaks API version {facts.kvm_api}, not {kvm.API_VERSION}."
    elif facts.create_vm_errno:
        number = facts.create_vm_errno
        cause = f"KVM_CREATE_VM failed: {os.strerror(number)} (errno {number})."
    else:
        return None
    return _no(
        Code.BROKEN,
        f"{cause} This is a foreign or broken KVM, or a sandbox (seccomp) forbids it.",
        f"{FULL_MODE} Look into: sudo dmesg | grep -i kvm",
    )


def _probe_fails(facts: HostFacts) -> Verdict | None:
    probe = facts.probe
    if probe is None or probe.passed:
        return None
    what = probe.failures if not probe.error else f"nothing is known: {probe.error.rstrip('.')}"
    if not facts.cpu.extension:
        name = "This KVM is PVM, which" if "kvm_pvm" in facts.modules else "This KVM"
        return _no(
            Code.SOFTWARE_KVM,
            f"{name} works without VT-x or AMD-V, by emulating instructions, and cannot run an "
            f"ordinary guest. {_PROBE} {what}.",
            f"{FULL_MODE} QEMU's own emulation (TCG) is faster than this KVM, too.",
        )
    again = "Try again: vmctl doctor --fresh; then look into: sudo dmesg | grep -i kvm."
    if probe.timed_out:
        cause = "KVM did not finish the probe in time"
        code = Code.PROBE_TIMED_OUT
    else:
        cause = "KVM does not run ordinary code"
        code = Code.PROBE_FAILED
    return _no(code, f"{cause}. {_PROBE} {what}.", f"{again} {FULL_MODE}")


def _unprobed(facts: HostFacts) -> Verdict:
    """KVM answers and nothing was run on it: believe it where the processor has the extension."""
    return Verdict(
        usable=bool(facts.cpu.extension),
        code=Code.UNPROBED,
        cause="KVM answers, but no code was run on it to see whether it works.",
        fix="Run the probe: vmctl doctor",
    )


_RULES: tuple[Callable[[HostFacts], Verdict | None], ...] = (
    _architecture,
    _works,
    _forbidden,
    _container,
    _not_a_device,
    _module_not_loaded,
    _firmware_disabled,
    _no_extension,
    _node_missing,
    _busy,
    _broken,
    _probe_fails,
)

HYPERVISORS = {
    "kvm": "KVM",
    "qemu": "QEMU's emulation (TCG)",
    "vmware": "VMware",
    "virtualbox": "VirtualBox",
    "hyperv": "Hyper-V",
    "xen": "Xen",
    "xen-dom0": "Xen",
    "parallels": "Parallels",
    "bhyve": "bhyve",
    "google": "Google Compute Engine",
    "amazon": "Amazon EC2",
    "unknown": "an unnamed hypervisor",
}
