"""Checks of the processor and of KVM: one line for each thing that can stand in the way."""

from __future__ import annotations

import os
from collections.abc import Mapping

from vmctl.doctor import codes
from vmctl.doctor.model import Finding, Level, Patient
from vmctl.host import kvm, nesting, remedy, verdict
from vmctl.host.facts import HostFacts, ProbeCase
from vmctl.host.verdict import Code, Verdict

_AT_FAULT: Mapping[str, str] = {
    Code.ARCHITECTURE: "HOST001",
    Code.FORBIDDEN: "KVM004",
    Code.GROUP_NOT_ACTIVE: "KVM004",
    Code.REFUSED_TO_QEMU: "KVM005",
    Code.NOT_A_DEVICE: "KVM003",
    Code.NODE_MISSING: "KVM003",
    Code.MODULE_NOT_LOADED: "KVM002",
    Code.FIRMWARE_DISABLED: "CPU003",
    Code.NO_CPU_FEATURE: "CPU001",
    Code.NO_NESTING_BELOW: "CPU001",
    Code.BUSY: "KVM007",
    Code.BROKEN: "KVM006",
    Code.SOFTWARE_KVM: "KVM010",
    Code.PROBE_FAILED: "KVM010",
    Code.PROBE_TIMED_OUT: "KVM010",
}
_CASES: Mapping[str, str] = {
    "long-mode": "KVM011",
    "sse": "KVM012",
    "cmpxchg16b": "KVM013",
    "exception": "KVM014",
    "loop": "KVM015",
}
_OFF = frozenset({"N", "n", "0"})


def examine(patient: Patient) -> list[Finding]:
    """Return what there is to say about processor and KVM; the one at fault carries the fix."""
    facts = patient.facts
    decided = verdict.kvm_verdict(facts, system=patient.system)
    at_fault = _code_at_fault(decided, facts)
    found = [
        _architecture(facts),
        _extension(facts),
        _paging(facts),
        _firmware(facts),
        _verdict(decided),
        _modules(facts),
        _node(facts),
        _open_to_user(facts),
        _open_to_qemu(patient),
        _answers(facts),
        _holder(facts),
        *_probe(facts, decided),
        *_reprobing(patient),
        _nested(patient),
    ]
    return [_blamed(each, decided) if each.code == at_fault else each for each in found]


def _code_at_fault(decided: Verdict, facts: HostFacts) -> str:
    if decided.code == Code.CONTAINER:
        return "KVM004" if facts.kvm_node.present else "KVM003"
    if decided.code == Code.BROKEN and facts.kvm_node.errno:
        return "KVM004"
    return _AT_FAULT.get(decided.code, "")


def _blamed(finding: Finding, decided: Verdict) -> Finding:
    return codes.finding(
        finding.code, Level.FAILURE, finding.detail, cause=decided.cause, fix=decided.fix
    )


def _architecture(facts: HostFacts) -> Finding:
    return codes.ok("HOST001", facts.architecture)


def _verdict(decided: Verdict) -> Finding:
    if decided.usable:
        words = "usable" if decided.code == Code.USABLE else "answers; not probed"
        return codes.ok("KVM001", words)
    if decided.code == Code.UNPROBED:
        return codes.finding(
            "KVM001", Level.WARNING, "not probed", cause=decided.cause, fix=decided.fix
        )
    return codes.finding(
        "KVM001",
        Level.FAILURE,
        f"cannot be used: {decided.code}",
        cause=decided.cause,
        fix=decided.fix,
    )


def _extension(facts: HostFacts) -> Finding:
    name = {"vmx": "VT-x (vmx)", "svm": "AMD-V (svm)"}.get(facts.cpu.extension, "")
    if name:
        return codes.ok("CPU001", f"{name}, {facts.cpu.model or facts.cpu.vendor}")
    return codes.info("CPU001", "neither VT-x (vmx) nor AMD-V (svm)")


def _paging(facts: HostFacts) -> Finding:
    option = "ept" if facts.cpu.intel else "npt"
    module = facts.kvm_module
    value = facts.parameters.get(f"{module}.{option}", "")
    if value in _OFF:
        return codes.finding(
            "CPU002",
            Level.WARNING,
            f"{option} is off: shadow paging",
            cause=f"Parameter '{option}' of {module} is '{value}', so KVM keeps shadow page "
            "tables: guests are right but slow.",
            fix=remedy.Family.of(facts.distribution).set_module_option(module, f"{option}=1"),
        )
    if value or option in facts.cpu.flags:
        return codes.ok("CPU002", option)
    return codes.info("CPU002", "not known without KVM's module")


def _firmware(facts: HostFacts) -> Finding:
    evidence = verdict.disabled_by_firmware(facts)
    if evidence:
        return codes.info("CPU003", f"switched off: {evidence}")
    if facts.cpu.extension:
        return codes.ok("CPU003", "nothing says that it is switched off")
    if facts.virtual:
        return codes.info("CPU003", "a virtual machine: no firmware setting of its own")
    return codes.info("CPU003", "nothing in the kernel's log (readable as root: dmesg)")


def _modules(facts: HostFacts) -> Finding:
    loaded = [name for name in facts.modules if name.startswith("kvm")]
    if {"kvm_intel", "kvm_amd"} & set(loaded):
        return codes.ok("KVM002", ", ".join(loaded))
    return codes.info("KVM002", ", ".join(loaded) or "not loaded")


def _node(facts: HostFacts) -> Finding:
    node = facts.kvm_node
    if not node.present:
        return codes.info("KVM003", f"{node.path or '/dev/kvm'} is missing")
    return codes.ok("KVM003", f"{node.path} {node.permissions}")


def _open_to_user(facts: HostFacts) -> Finding:
    node, name = facts.kvm_node, facts.user.name
    if not node.present:
        return codes.info("KVM004", "there is nothing to open")
    if node.errno:
        return codes.info("KVM004", f"closed to '{name}': {os.strerror(node.errno)}")
    return codes.ok("KVM004", f"'{name}' opens it")


def _open_to_qemu(patient: Patient) -> Finding:
    account, node = patient.facts.qemu_user, patient.facts.kvm_node
    if not patient.system:
        return codes.info("KVM005", "QEMU runs as you in qemu:///session")
    if account is None:
        return codes.info("KVM005", "no account for QEMU found")
    if not node.present:
        return codes.info("KVM005", "there is nothing to open")
    if account.opens_kvm:
        return codes.ok("KVM005", f"'{account.name}' may open it")
    return codes.info("KVM005", f"closed to '{account.name}': {node.permissions}")


def _answers(facts: HostFacts) -> Finding:
    if facts.kvm_api is None:
        return codes.info("KVM006", "could not be asked")
    if facts.create_vm_errno:
        reason = os.strerror(facts.create_vm_errno)
        return codes.info("KVM006", f"API {facts.kvm_api}; KVM_CREATE_VM: {reason}")
    if facts.kvm_api != kvm.API_VERSION:
        return codes.info("KVM006", f"API {facts.kvm_api}")
    return codes.ok("KVM006", f"API {facts.kvm_api}, KVM_CREATE_VM works")


def _holder(facts: HostFacts) -> Finding:
    others = {"vboxdrv": "VirtualBox", "vmmon": "VMware"}
    present = [name for module, name in others.items() if module in facts.modules]
    if present:
        return codes.info("KVM007", f"{', '.join(present)}: modules loaded; one at a time runs")
    return codes.ok("KVM007", "none")


def _probe(facts: HostFacts, decided: Verdict) -> list[Finding]:
    probe = facts.probe
    if probe is None:
        return [codes.info("KVM010", "not run")]
    remembered = ", remembered" if probe.cached else ""
    took = f"{probe.seconds:.1f} s{remembered}"
    if probe.passed:
        summary = codes.ok("KVM010", f"the probe passed ({took})")
    else:
        summary = codes.info("KVM010", f"the probe failed ({took})")
    return [summary, *(_case(case, decided) for case in probe.cases if case.name in _CASES)]


def _case(case: ProbeCase, decided: Verdict) -> Finding:
    code = _CASES[case.name]
    if case.passed:
        return codes.ok(code, f"{case.milliseconds:.1f} ms")
    return codes.finding(code, Level.FAILURE, case.detail, cause=decided.cause, fix=decided.fix)


def _reprobing(patient: Patient) -> list[Finding]:
    """Libvirt forgets what it knows of QEMU when KVM is there but closed to QEMU's account."""
    account, libvirt, facts = patient.facts.qemu_user, patient.libvirt, patient.facts
    if libvirt is None or not libvirt.reachable or not patient.system or account is None:
        return []
    if account.opens_kvm or not facts.kvm_node.present:
        return [codes.ok("KVM020", "libvirt keeps what it knows of QEMU")]
    if not libvirt.kvm_in_capabilities:
        return [codes.info("KVM020", f"'{account.name}' does not open {facts.kvm_node.path}")]
    return [
        codes.finding(
            "KVM020",
            Level.WARNING,
            "libvirt asks QEMU anew at every start",
            cause=f"Libvirt lists KVM, but '{account.name}' cannot open {facts.kvm_node.path} "
            f"({facts.kvm_node.permissions}), so libvirt takes what it knows of QEMU for outdated: "
            "a start takes 4 s instead of 0.3 s.",
            fix=verdict.open_node_fix(facts),
        )
    ]


def _nested(patient: Patient) -> Finding:
    decided = nesting.nested_verdict(patient.facts, system=patient.system)
    if decided.code == Code.NESTED_KVM:
        return codes.ok("NEST001", "guests can have KVM of their own")
    if decided.code == Code.NESTED_TCG:
        return codes.info("NEST001", "by emulation (TCG) only: AMD-V, slow")
    if decided.code == Code.ARCHITECTURE:
        return codes.info("NEST001", "x86-64 only")
    return codes.finding("NEST001", Level.WARNING, "off", cause=decided.cause, fix=decided.fix)
