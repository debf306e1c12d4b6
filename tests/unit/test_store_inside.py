"""What is remembered of a guest's inside survives, and damage to it means nothing is known."""

from __future__ import annotations

import pathlib
import stat

import pytest

from vmctl.store import inside
from vmctl.store.inside import Inside
from vmctl.store.layout import MachineFiles

FULL = Inside(mounted="run-1", places=("/a", "/b c"), steps=("1", "2"), run="run-1", failed="three")


@pytest.fixture
def place(tmp_path: pathlib.Path) -> MachineFiles:
    return MachineFiles(tmp_path)


def test_round_trip(place: MachineFiles) -> None:
    assert inside.read(place) == Inside()
    inside.write(place, FULL)
    assert inside.read(place) == FULL
    assert inside.parse(place.inside.read_text()) == FULL
    assert stat.S_IMODE(place.inside.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"unknown": 1}'])
def test_damage(place: MachineFiles, text: str) -> None:
    place.inside.write_text(text)
    assert inside.read(place) == Inside()
    assert inside.parse(text) == Inside()
