"""How far a machine is with its provision steps."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from tests import replay
from vmctl.lifecycle import provision
from vmctl.lifecycle.provision import Progress
from vmctl.machine.model import Machine
from vmctl.store import inside
from vmctl.store.inside import Inside
from vmctl.store.layout import Layout


def machine(*, disk: bool, provision: str = "digest") -> Machine:
    (made,) = replay.machines(
        replay.TEMPLATES / "hello.yaml",
        replay.surroundings(replay.host("software-kvm-no-flags")),
        "accel=tcg",
        "devices=virtio",
    )
    image = replay.DISTRIBUTION if disk else replay.TINY
    return dataclasses.replace(made, provision=provision, image=image)


@pytest.mark.parametrize(
    ("known", "progress"),
    [
        (Inside(), Progress.NO),
        (Inside(steps=("1",), run="a", complete=True), Progress.YES),
        (Inside(steps=("1",), run="a", failed="two"), Progress.FAILED),
    ],
)
def test_progress(tmp_path: pathlib.Path, known: Inside, progress: Progress) -> None:
    layout = Layout(tmp_path)
    for disk in (True, False):
        wanted = machine(disk=disk)
        layout.machine(wanted.name).directory.mkdir(parents=True, exist_ok=True)
        inside.write(layout.machine(wanted.name), known)
        assert provision.progress(layout, wanted, "a") is progress


def test_a_guest_in_memory_forgets(tmp_path: pathlib.Path) -> None:
    layout = Layout(tmp_path)
    known = Inside(steps=("1",), run="a", complete=True)
    layout.machine(machine(disk=True).name).directory.mkdir(parents=True)
    inside.write(layout.machine(machine(disk=True).name), known)
    for run in ("b", ""):
        assert provision.progress(layout, machine(disk=False), run) is Progress.NO
        assert provision.progress(layout, machine(disk=True), run) is Progress.YES


def test_nothing_to_do(tmp_path: pathlib.Path) -> None:
    wanted = machine(disk=True, provision="")
    assert provision.progress(Layout(tmp_path), wanted) is Progress.NOTHING
