"""Timers. Which ones a guest has decides how dearly it pays for the time of day."""

from __future__ import annotations

from vmctl.machine.model import Accel, Machine, Mode
from vmctl.machine.xml.element import Writer


def write(machine: Machine, out: Writer) -> None:
    """Write <clock>."""
    clock = out.add(out.root, "clock", offset="utc", why="always: hardware clocks keep UTC")
    if machine.mode is Mode.PARAVIRT:
        why = "mode paravirt: kvmclock tells the time without an exit; lost ticks are caught up"
        out.add(clock, "timer", name="rtc", tickpolicy="catchup", why=why)
        out.add(clock, "timer", name="pit", tickpolicy="delay")
        out.add(clock, "timer", name="hpet", present="no")
        out.add(clock, "timer", name="kvmclock", present="yes")
        return
    out.add(
        clock,
        "timer",
        name="hpet",
        present="yes",
        why="an emulated timer: without it a guest under TCG falls back to the slow ACPI timer",
    )
    if machine.accel is Accel.KVM:
        out.add(
            clock,
            "timer",
            name="kvmclock",
            present="no",
            why="mode hardware: no paravirtual clock",
        )
