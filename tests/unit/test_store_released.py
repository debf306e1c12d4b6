"""What is remembered of a machine that was let go of."""

from __future__ import annotations

import pathlib

import pytest

from vmctl import errors
from vmctl.store import files, records
from vmctl.store.layout import Layout
from vmctl.store.records import Record, Released


def machine(tmp_path: pathlib.Path) -> tuple[Layout, Record]:
    layout = Layout(tmp_path)
    files.make_directory(layout.machine("web").directory)
    made = Record(name="web", project="p", uuid="u", uri="x", mode="full", networks=("vmctl-nat",))
    return layout, made


def test_it_counts_once_its_record_is_gone(tmp_path: pathlib.Path) -> None:
    layout, made = machine(tmp_path)
    place = layout.machine("web")
    records.write(place, made)
    gone = Released(made, "<machine/>", "<machine applied='x'/>", 7)
    records.release(place, gone)
    assert records.released(place) is None
    files.remove(place.record)
    assert records.released(place) == gone
    assert list(records.every(layout)) == []
    assert list(records.networks(layout, "x")) == ["vmctl-nat"]
    assert list(records.networks(layout, "y")) == []


def test_no_new_machine_is_made_over_its_files(tmp_path: pathlib.Path) -> None:
    layout, made = machine(tmp_path)
    place = layout.machine("web")
    records.release(place, Released(made, "<machine/>"))
    with pytest.raises(errors.ConflictError, match="was released"):
        records.begin(place, "up")
    assert not place.intent.exists()
    records.begin(place, "adopt")


def test_damage_is_nothing(tmp_path: pathlib.Path) -> None:
    layout, _ = machine(tmp_path)
    place = layout.machine("web")
    for text in (b"{", b"[]", b"{}", b'{"name": "web"}'):
        files.write(place.released, text)
        assert records.released(place) is None
