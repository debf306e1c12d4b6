"""Decides whether guests here can run guests of their own, and what this host itself runs on."""

from __future__ import annotations

import dataclasses
import enum

from vmctl.host import remedy, verdict
from vmctl.host.facts import HostFacts
from vmctl.host.verdict import Code, Verdict

_YES = frozenset({"Y", "y", "1"})


class Layer(enum.StrEnum):
    """Where a hypervisor on this host stands."""

    BARE_METAL = "bare-metal"
    VIRTUAL_MACHINE = "virtual-machine"
    CONTAINER = "container"
    TYPE_1 = "type-1"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What this host runs on, in a word, in a few words and in a sentence."""

    layer: Layer
    short: str
    sentence: str


def nested_verdict(facts: HostFacts, *, system: bool | None = None) -> Verdict:
    """Tell whether `nested: true` gives a guest VT-x or AMD-V here, and through what."""
    kvm = verdict.kvm_verdict(facts, system=system)
    if not facts.x86_64:
        return kvm
    if not kvm.usable:
        return Verdict(
            usable=True,
            code=Code.NESTED_TCG,
            cause="There is no usable KVM here, so nested guests get AMD-V (svm, npt) as TCG "
            "emulates it: a working /dev/kvm in the guest, at the speed of emulation.",
        )
    module = facts.kvm_module
    parameter = facts.parameters.get(f"{module}.nested", "")
    if parameter and parameter not in _YES:
        family = remedy.Family.of(facts.distribution)
        return Verdict(
            usable=False,
            code=Code.NESTED_OFF,
            cause=f"Nesting is switched off: parameter 'nested' of {module} is '{parameter}'.",
            fix=family.set_module_option(module, "nested=1"),
        )
    cpuid = facts.nested_cpuid
    if cpuid is not None and not (cpuid.vmx or cpuid.svm):
        return Verdict(
            usable=False,
            code=Code.NESTED_HIDDEN,
            cause="KVM offers its guests neither vmx nor svm (KVM_GET_SUPPORTED_CPUID), although "
            f"parameter 'nested' of {module} does not forbid it.",
            fix=remedy.outer_nesting(facts)
            if facts.virtual
            else "Look into: sudo dmesg | grep -i nested",
        )
    return Verdict(usable=True, code=Code.NESTED_KVM)


def platform(facts: HostFacts) -> Platform:
    """Tell in one sentence what this host runs on: bare metal, a hypervisor, a container."""
    below = verdict.HYPERVISORS.get(facts.virtual, facts.virtual)
    if facts.container:
        under = f" on a virtual machine under {below}" if below else ""
        return Platform(
            layer=Layer.CONTAINER,
            short=f"container ({facts.container})",
            sentence=f"This is a container ({facts.container}){under}: it shares its host's kernel "
            "and sees of /dev only what was handed in.",
        )
    if facts.virtual == "xen-dom0":
        return Platform(
            layer=Layer.TYPE_1,
            short="control domain of Xen",
            sentence="This is the control domain of Xen, a type I hypervisor that holds the "
            "processor's virtualization itself.",
        )
    if facts.virtual:
        return Platform(
            layer=Layer.VIRTUAL_MACHINE,
            short=f"virtual machine under {below}",
            sentence=f"This host is a virtual machine, under {below}: its own guests are nested.",
        )
    return Platform(
        layer=Layer.BARE_METAL,
        short="bare metal",
        sentence="This host runs Linux on bare metal: QEMU is a type II hypervisor on it, and with "
        "KVM the kernel itself is the hypervisor, which some call type I.",
    )
