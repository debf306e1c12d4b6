"""Which modes can run here."""

from __future__ import annotations

from vmctl.doctor import on_system
from vmctl.doctor.model import LibvirtFacts, Patient
from vmctl.host import verdict
from vmctl.host.facts import HostFacts
from vmctl.host.remedy import Family, Part
from vmctl.host.verdict import Verdict
from vmctl.machine.model import Accel, Mode

PREFERENCE = (Mode.PARAVIRT, Mode.TCG_VIRTIO)
"""What `auto` takes, best first."""


def mode_verdict(
    facts: HostFacts, mode: Mode | None, libvirt: LibvirtFacts | None = None
) -> Verdict:
    """Tell whether `mode` can run here; None asks for auto, which any mode satisfies.

    Without `libvirt` only the host itself is judged.
    """
    if mode is None:
        return mode_verdict(facts, best_mode(facts, libvirt) or Mode.TCG_VIRTIO, libvirt)
    patient = Patient(facts=facts, libvirt=libvirt)
    for lack in (_lack_of_host(facts), _lack_of_libvirt(facts, libvirt)):
        if lack:
            return lack
    if mode.accel is Accel.TCG:
        return Verdict(usable=True, code="usable")
    kvm = verdict.kvm_verdict(facts, system=patient.system)
    if kvm.usable and libvirt is not None and not libvirt.kvm_in_capabilities:
        cause, fix = on_system.not_offered(facts)
        return Verdict(usable=False, code="not-offered", cause=cause, fix=fix)
    return kvm


def best_mode(facts: HostFacts, libvirt: LibvirtFacts | None = None) -> Mode | None:
    """Return what `auto` stands for here, None where nothing runs."""
    fitting = (mode for mode in PREFERENCE if mode_verdict(facts, mode, libvirt).usable)
    return next(fitting, None)


def _lack_of_host(facts: HostFacts) -> Verdict | None:
    if not facts.x86_64:
        return verdict.kvm_verdict(facts)
    if facts.emulator:
        return None
    return Verdict(
        usable=False,
        code="no-emulator",
        cause="There is no emulator for x86-64 (qemu-system-x86_64).",
        fix=Family.of(facts.distribution).install(Part.EMULATOR),
    )


def _lack_of_libvirt(facts: HostFacts, libvirt: LibvirtFacts | None) -> Verdict | None:
    if libvirt is None or libvirt.reachable:
        return None
    (finding, *_) = on_system.libvirt(Patient(facts=facts, libvirt=libvirt))
    return Verdict(usable=False, code="no-libvirt", cause=finding.cause, fix=finding.fix)
