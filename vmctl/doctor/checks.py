"""The whole examination: symptom, cause, fix, over host facts and what libvirt showed."""

from __future__ import annotations

import pathlib

from vmctl.doctor import codes, modes, on_kvm, on_store, on_system
from vmctl.doctor.model import Finding, Level, LibvirtFacts, Patient
from vmctl.host.facts import HostFacts
from vmctl.machine.model import Mode


def examine(facts: HostFacts, libvirt: LibvirtFacts | None, store: pathlib.Path) -> list[Finding]:
    """Return every finding, in the order of docs/doctor.md; `libvirt` None means not asked."""
    patient = Patient(facts=facts, libvirt=libvirt)
    findings = [
        *on_kvm.examine(patient),
        *on_system.surroundings(facts),
        *on_system.emulator(patient),
        *on_system.firmware(patient),
        *on_system.libvirt(patient),
        *on_system.network(patient),
        on_system.shares(patient),
        *on_store.examine(patient, store),
        _modes(facts, libvirt),
    ]
    order = list(codes.TITLES)
    return sorted(findings, key=lambda finding: order.index(finding.code))


def _modes(facts: HostFacts, libvirt: LibvirtFacts | None) -> Finding:
    running = [mode for mode in Mode if modes.mode_verdict(facts, mode, libvirt).usable]
    best = modes.best_mode(facts, libvirt)
    if best is None:
        lack = modes.mode_verdict(facts, None, libvirt)
        return codes.finding(
            "MODE001", Level.FAILURE, "none can run here", cause=lack.cause, fix=lack.fix
        )
    return codes.ok("MODE001", f"{', '.join(running)}; auto is {best}")
