"""When a change of a running machine takes hold: at once, at its next start, or never."""

from __future__ import annotations

import enum

from vmctl.machine.model import Accel, Disk, Machine


class Effect(enum.StrEnum):
    """When a change takes hold."""

    NOW = "live"
    NEXT_START = "at next start"
    RE_CREATION = "needs re-creation"

    @property
    def phrase(self) -> str:
        """When, at the end of a sentence."""
        return _PHRASES[self]


_PHRASES = {
    Effect.NOW: "at once",
    Effect.NEXT_START: "at the next start",
    Effect.RE_CREATION: "only in a new machine",
}

_NOW = {"forwards", "ready", "needs", "autostart", "project", "provision", "description"}
_RE_CREATION = {"image", "firmware"}
FIRST_BOOT = ("hostname", "user", "ssh_keys", "cloud_init", "user_data")
"""What cloud-init carries out once in the life of a machine."""

_PLUG = {"kind", "network", "bridge"}
"""What of a card is changed by plugging it anew."""

SYSTEM_DISK = "root"


def same_hardware(before: Machine, after: Machine) -> bool:
    """Tell whether both have the same mainboard and kind of devices: else nothing is plugged."""
    return (before.mode, before.chipset) == (after.mode, after.chipset)


def of_field(name: str, before: Machine, after: Machine) -> Effect:
    """Return when a change of a whole field takes hold."""
    if name in FIRST_BOOT:
        # Without cloud-init the name is on the kernel's command line.
        return Effect.RE_CREATION if after.seed else Effect.NEXT_START
    if name in _RE_CREATION:
        return Effect.RE_CREATION
    live = name in _NOW
    if name == "memory":
        # Through the balloon, a virtio device, up to what the machine was started with.
        live = before.virtio and after.virtio and after.memory <= before.memory_max
    elif name == "cpus":
        live = same_hardware(before, after) and after.cpus <= before.cpus_max
        # Under TCG, QEMU 7.2 does not tell libvirt that a processor is gone: libvirt counts it for
        # ever, and plugs no other in.
        live = live and (after.cpus > before.cpus or before.accel is Accel.KVM)
    return Effect.NOW if live else Effect.NEXT_START


def of_item(name: str, item: object, before: Machine, after: Machine) -> Effect:
    """Return when a disk, a card, a mount or a forwarded port comes or goes."""
    if name == "disks":
        assert isinstance(item, Disk)
        # AHCI and IDE, as QEMU has them, take no disk while the machine runs.
        system = item.name == SYSTEM_DISK or bool(item.base)
        live = before.virtio and same_hardware(before, after) and not system
    elif name == "nics":
        live = same_hardware(before, after)
    else:
        live = name in _NOW
    return Effect.NOW if live else Effect.NEXT_START


def of_part(
    name: str, part: str, values: tuple[object, object], before: Machine, after: Machine
) -> Effect:
    """Return when one part of a disk, a card, a mount or a forwarded port changes."""
    if name == "disks" and part == "size":
        was, will = values
        assert isinstance(was, int)
        assert isinstance(will, int)
        if will < was:
            return Effect.RE_CREATION
        # QEMU's AHCI and IDE do not tell a running guest.
        live = before.virtio and same_hardware(before, after)
    elif name == "nics":
        live = part in _PLUG and same_hardware(before, after)
    else:
        live = name in _NOW or part == "keep"
    return Effect.NOW if live else Effect.NEXT_START


_STAYING = {"cpu_shares", "io_weight", "cpuset"}
"""Limits that another one can replace while the machine runs, but not none."""


def of_limit(part: str, after: object) -> Effect:
    """Return when a limit changes."""
    return Effect.NEXT_START if part in _STAYING and not after else Effect.NOW
