from __future__ import annotations

import pytest

from tests import replay
from vmctl import errors
from vmctl.host import verdict
from vmctl.machine import modes
from vmctl.machine.model import Accel, Chipset, Devices, Mode

KVM = verdict.kvm_verdict(replay.host("kvm-intel-fine"), system=True)
NO_KVM = verdict.kvm_verdict(replay.host("software-kvm-no-flags"), system=True)
STANDARD = replay.ALL_DRIVERS
CLOUD = frozenset({"virtio", "ide"})


def test_the_table_of_modes_has_four_cells() -> None:
    cells = {(mode.accel, mode.devices): mode for mode in Mode}
    assert len(cells) == 4
    assert cells[Accel.TCG, Devices.EMULATED] is Mode.FULL
    assert cells[Accel.KVM, Devices.EMULATED] is Mode.HARDWARE
    assert cells[Accel.KVM, Devices.VIRTIO] is Mode.PARAVIRT
    assert all(Mode.of(*cell) is mode for cell, mode in cells.items())


def test_auto_takes_paravirt_where_kvm_works() -> None:
    choice = modes.choose(modes.Wish(), KVM, STANDARD)
    assert (choice.mode, choice.loud) == (Mode.PARAVIRT, False)


def test_auto_falls_back_loudly_with_reason_and_fix() -> None:
    choice = modes.choose(modes.Wish(), NO_KVM, STANDARD)
    assert choice.mode is Mode.TCG_VIRTIO
    assert choice.loud
    assert NO_KVM.cause.partition(". ")[0] in choice.why
    assert choice.hint == ""
    forbidden = verdict.kvm_verdict(replay.host("kvm-forbidden"), system=False)
    assert "usermod" in modes.choose(modes.Wish(), forbidden, STANDARD).hint


def test_auto_emulates_devices_for_an_image_without_virtio() -> None:
    choice = modes.choose(modes.Wish(), KVM, frozenset({"ahci", "e1000e"}))
    assert (choice.mode, choice.loud) == (Mode.HARDWARE, True)
    assert "no virtio drivers" in choice.why


@pytest.mark.parametrize("mode", ["hardware", "paravirt"])
def test_a_mode_by_name_is_never_changed(mode: str) -> None:
    with pytest.raises(errors.HostError) as refusal:
        modes.choose(modes.Wish(mode=mode), NO_KVM, STANDARD)
    assert refusal.value.exit_code == 5
    assert mode in refusal.value.message
    assert NO_KVM.cause in refusal.value.message


def test_full_runs_everywhere() -> None:
    for said in (KVM, NO_KVM):
        assert modes.choose(modes.Wish(mode="full"), said, STANDARD).mode is Mode.FULL


def test_half_a_wish_is_kept() -> None:
    wish = modes.Wish(accel=Accel.TCG)
    choice = modes.choose(wish, KVM, STANDARD)
    assert (choice.mode, choice.loud) == (Mode.TCG_VIRTIO, False)
    assert modes.choose(modes.Wish(devices=Devices.EMULATED), KVM, STANDARD).mode is Mode.HARDWARE
    with pytest.raises(errors.HostError):
        modes.choose(modes.Wish(accel=Accel.KVM), NO_KVM, STANDARD)


def test_boards() -> None:
    assert modes.board(Mode.FULL, STANDARD) == modes.Board(Chipset.Q35, "e1000e")
    assert modes.board(Mode.PARAVIRT, STANDARD) == modes.Board(Chipset.Q35, "virtio")
    old = frozenset({"ide", "e1000"})
    assert modes.board(Mode.HARDWARE, old) == modes.Board(Chipset.PC, "e1000")
    assert modes.board(Mode.FULL, None).chipset is Chipset.Q35


@pytest.mark.parametrize("mode", [Mode.FULL, Mode.HARDWARE])
def test_a_cloud_kernel_is_refused_with_the_reason(mode: Mode) -> None:
    with pytest.raises(modes.MissingDriverError) as refusal:
        modes.board(mode, CLOUD)
    assert "AHCI" in refusal.value.message
    assert "ide, virtio" in refusal.value.message
    assert refusal.value.exit_code == 2
