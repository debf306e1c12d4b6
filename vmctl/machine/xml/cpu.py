"""The processor that the guest sees."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from vmctl.machine.model import Accel, Machine, Mode
from vmctl.machine.xml.element import Writer


def write(machine: Machine, out: Writer) -> None:
    """Write <cpu>: without it QEMU gives qemu64, under KVM too."""
    if machine.accel is Accel.KVM:
        cpu = out.add(
            out.root,
            "cpu",
            mode="host-passthrough",
            check="none",
            migratable="on",
            why="accel kvm: the guest's instructions run on the host's processor",
        )
    else:
        cpu = out.add(
            out.root,
            "cpu",
            mode="maximum",
            check="none",
            why="accel tcg: every feature that QEMU can emulate (named models lack some)",
        )
    out.add(
        cpu,
        "topology",
        sockets="1",
        dies="1",
        cores=str(machine.cpus_max),
        threads="1",
        why="always: one socket; a flat topology of many sockets costs up to half the speed",
    )
    if machine.accel is Accel.TCG:
        # Seen with QEMU 7.2, OVMF and Linux 6.1: with la57 and without svm, system calls in the
        # guest return wrong values.
        out.add(
            cpu,
            "feature",
            policy="disable",
            name="la57",
            why="accel tcg: QEMU runs guests with 5-level page tables wrongly (and more slowly)",
        )
        # A kernel that sees it copies and clears pages by one REP MOVSB or STOSB, which TCG carries
        # out byte by byte: about a tenth of all that a Debian guest needs to boot.
        out.add(
            cpu,
            "feature",
            policy="disable",
            name="erms",
            why="accel tcg: string instructions that are quick on a processor are slow in QEMU",
        )
    if machine.mode is Mode.PARAVIRT:
        out.add(cpu, "cache", mode="passthrough", why="mode paravirt: the host's real cache sizes")
    _write_nesting(machine, out, cpu)


def _write_nesting(machine: Machine, out: Writer, cpu: ET.Element) -> None:
    if not machine.nested:
        why = "nested: false: the guest is not shown VT-x/AMD-V"
        for name in hidden_flags(machine):
            out.add(cpu, "feature", policy="disable", name=name, why=why)
    elif machine.accel is Accel.KVM:
        out.add(
            cpu,
            "feature",
            policy="require",
            name=machine.host_cpu,
            why="nested: true: the guest gets the host's virtualization extension",
        )
    else:
        out.add(
            cpu,
            "feature",
            policy="require",
            name="svm",
            why="nested: true: TCG emulates AMD-V with nested paging (it has no VT-x)",
        )


def hidden_flags(machine: Machine) -> tuple[str, ...]:
    """Return the flags that say VT-x/AMD-V: TCG has svm only, a host has one or, unknown, both."""
    if machine.accel is Accel.TCG:
        return ("svm",)
    return (machine.host_cpu,) if machine.host_cpu else ("vmx", "svm")


def read_nested(root: ET.Element) -> bool:
    """Return whether the guest is shown VT-x/AMD-V."""
    policies = {
        feature.get("name"): feature.get("policy") for feature in root.findall("cpu/feature")
    }
    return "require" in (policies.get("vmx"), policies.get("svm"))
