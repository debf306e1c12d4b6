"""JSON: the same text for the same data, whatever is in it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmctl.machine import model
from vmctl.ui import json_out


class Colour(enum.StrEnum):
    """Something with names."""

    RED = "red"


@dataclasses.dataclass(frozen=True)
class Thing:
    """Something with fields."""

    z: pathlib.Path
    a: Colour
    many: frozenset[str]
    inner: Thing | None = None


def test_data_of_all_kinds() -> None:
    thing = Thing(pathlib.Path("/x"), Colour.RED, frozenset({"b", "a"}))
    data = {
        Colour.RED: dataclasses.replace(thing, inner=thing),
        3: (1, 2.5, None, True, float("nan"), b"\xff"),
        "when": dt.date(2024, 2, 29),
    }
    plain = {"z": "/x", "a": "red", "many": ["a", "b"], "inner": None}
    assert json_out.plain(data) == {
        "red": plain | {"inner": plain},
        "3": [1, 2.5, None, True, None, "\\xff"],
        "when": "2024-02-29",
    }


def test_fields_keep_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    json_out.emit({"z": 1, "a": [2]})
    assert capsys.readouterr().out == '{\n  "z": 1,\n  "a": [\n    2\n  ]\n}\n'


@given(st.text(alphabet=st.characters()))
def test_any_text_passes_as_ascii_and_comes_back(text: str) -> None:
    written = json_out.text(text)
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written) == text


def test_parts_of_a_machine_have_a_form() -> None:
    parts = (model.Image(name="tiny", drivers=frozenset({"virtio", "ahci"})), model.Mode.FULL)
    image, mode = json.loads(json_out.text(parts))
    assert mode == "full"
    assert image["drivers"] == ["ahci", "virtio"]
    assert image["disk_format"] == "qcow2"


def test_what_has_no_form_is_named() -> None:
    with pytest.raises(TypeError, match="object"):
        json_out.text(object())
