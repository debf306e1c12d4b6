"""ACPI and what the accelerator shows or hides."""

from __future__ import annotations

from vmctl.machine.model import Accel, Firmware, Machine, Mode
from vmctl.machine.xml.element import Writer

TRANSLATION_CACHE_MIB = 256
"""QEMU's own default is min(1 GiB, host memory / 8) for each guest (tcg/region.c)."""


def write(machine: Machine, out: Writer) -> None:
    """Write <features>."""
    block = out.add(out.root, "features")
    out.add(block, "acpi", why="always: power button and plugging work through ACPI")
    out.add(block, "apic", why="always: more than one processor and message-signalled interrupts")
    if machine.mode is Mode.HARDWARE:
        kvm = out.add(
            block, "kvm", why="mode hardware: the guest is not shown KVM's paravirtual features"
        )
        out.add(kvm, "hidden", state="on")
    if machine.mode is Mode.PARAVIRT:
        out.add(
            block,
            "pvspinlock",
            state="on",
            why="mode paravirt: a guest's spinning processor gives way to the one it waits for",
        )
    if machine.firmware is Firmware.UEFI_SECURE:
        out.add(
            block,
            "smm",
            state="on",
            why="firmware uefi-secure: only system management mode may write the UEFI variables",
        )
    out.add(block, "vmport", state="off", why="always: VMware's back door is of no use here")
    if machine.virtio:
        out.add(
            block,
            "vmcoreinfo",
            state="on",
            why=f"mode {machine.mode}: a crash dump taken from outside can be read",
        )
    if machine.accel is Accel.TCG:
        tcg = out.add(
            block,
            "tcg",
            why="accel tcg: the cache of translated code is bounded, else it takes up to 1 GiB",
        )
        out.add(tcg, "tb-cache", unit="KiB", text=str(TRANSLATION_CACHE_MIB * 1024))
