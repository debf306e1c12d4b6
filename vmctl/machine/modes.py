"""Which mode a machine runs in, and why."""

from __future__ import annotations

import dataclasses

from vmctl import errors
from vmctl.host.verdict import Verdict
from vmctl.machine.model import Accel, Chipset, Devices, Mode

MEANING = {
    Mode.FULL: "full emulation: TCG translates every instruction, devices are emulated",
    Mode.HARDWARE: "hardware-assisted: KVM runs the instructions, devices are emulated",
    Mode.PARAVIRT: "paravirtual: KVM runs the instructions, devices are virtio",
    Mode.TCG_VIRTIO: "emulation with virtio: TCG translates every instruction, devices are virtio",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """What a spec says about the mode: a name or auto; None is for what it leaves open."""

    mode: str = "auto"
    accel: Accel | None = None
    devices: Devices | None = None

    @property
    def automatic(self) -> bool:
        """True where the mode's name leaves the choice to vmctl."""
        return self.mode == "auto"


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """The mode with its reason; `hint` is how to get a better one, `loud` if it is a fallback."""

    mode: Mode
    why: str
    loud: bool = False
    hint: str = ""


class MissingDriverError(errors.UsageError):
    """The image's kernel has no driver for a device that the mode shows it."""


def choose(wish: Wish, kvm: Verdict, drivers: frozenset[str] | None) -> Choice:
    """Return the mode for a wish on this host.

    `drivers` are those of the image's kernel, None where there is no image. A mode that is asked
    for by name is never changed: raises HostError where the host cannot run it. A fallback that
    `auto` takes is loud.
    """
    if not wish.automatic:
        mode = Mode(wish.mode)
        require(mode, kvm)
        return Choice(mode, f"{MEANING[mode]} (asked for by name)")
    accel, why, loud = _accel(wish, kvm)
    devices = wish.devices or Devices.VIRTIO
    if wish.devices is None and drivers is not None and "virtio" not in drivers:
        devices = Devices.EMULATED
        loud = True
        why += "; the image has no virtio drivers, so its devices are emulated"
    mode = Mode.of(accel, devices)
    if accel is Accel.KVM:
        require(mode, kvm)
    return Choice(mode, f"{MEANING[mode]} ({why})", loud, _remedy(kvm) if loud else "")


def _remedy(kvm: Verdict) -> str:
    """Return how to get KVM, where there is a way; that auto runs without it is known by now."""
    return "" if kvm.fix.startswith("Use mode full or auto") else kvm.fix


def _accel(wish: Wish, kvm: Verdict) -> tuple[Accel, str, bool]:
    if wish.accel is not None:
        return wish.accel, f"accel: {wish.accel}", False
    if kvm.usable:
        return Accel.KVM, "KVM works on this host", False
    # The whole cause takes a paragraph; `doctor` tells it.
    cause = kvm.cause.partition(". ")[0].rstrip(".")
    return Accel.TCG, f"KVM cannot be used: {cause}; see vmctl doctor", True


def require(mode: Mode, kvm: Verdict) -> None:
    """Raise HostError where the host cannot run a mode that was asked for by name."""
    if mode.accel is Accel.KVM and not kvm.usable:
        raise errors.HostError(
            f"Mode '{mode}' needs KVM, and this host cannot offer it: {kvm.cause}",
            hint=kvm.fix or "Use mode: auto, which falls back to emulation.",
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Board:
    """The mainboard and the kind of network card that suit a mode and an image's drivers."""

    chipset: Chipset
    nic: str


_EMULATED = (
    (Board(Chipset.Q35, "e1000e"), frozenset({"ahci", "e1000e"})),
    (Board(Chipset.Q35, "e1000"), frozenset({"ahci", "e1000"})),
    (Board(Chipset.PC, "e1000"), frozenset({"ide", "e1000"})),
)
"""Boards with emulated devices, the best one first, and the drivers that they take."""


def board(mode: Mode, drivers: frozenset[str] | None, chipset: Chipset | None = None) -> Board:
    """Return the board for a mode; `chipset` is the one that the spec asks for.

    Raises MissingDriverError where the image's kernel could not drive what it is shown, as Debian's
    cloud kernel, which has neither AHCI nor e1000.
    """
    if mode.devices is Devices.VIRTIO:
        if drivers is not None and "virtio" not in drivers:
            raise _missing(mode, "virtio", drivers)
        return Board(chipset or Chipset.Q35, "virtio")
    for possible, needed in _EMULATED:
        if chipset in (None, possible.chipset) and (drivers is None or needed <= drivers):
            return possible
    bus = {None: "AHCI or IDE", Chipset.Q35: "AHCI", Chipset.PC: "IDE"}[chipset]
    raise _missing(mode, f"{bus}, and e1000 or e1000e", drivers or frozenset())


def _missing(mode: Mode, needed: str, drivers: frozenset[str]) -> MissingDriverError:
    has = ", ".join(sorted(drivers)) or "none of those vmctl knows"
    return MissingDriverError(
        f"Mode '{mode}' shows the guest devices that need drivers for {needed}; "
        f"the image's kernel has: {has}.",
        hint="Use an image with a standard kernel, or a mode with devices that it can drive.",
    )
