from __future__ import annotations

import pathlib

import pytest

from vmctl import errors
from vmctl.lifecycle import targets
from vmctl.store import files, records
from vmctl.store.layout import Layout


@pytest.fixture
def spec(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("VMCTL_HOME", str(tmp_path / "store"))
    path = tmp_path / "web.yaml"
    path.write_text("name: web\nproject: mine\nimage: tiny\n")
    return path


def remember(project: str) -> None:
    place = Layout.default().machine("web")
    files.make_directory(place.directory)
    records.write(
        place, records.Record(name="web", project=project, uuid="u", uri="x", mode="full")
    )


def test_words_are_files_or_names(spec: pathlib.Path) -> None:
    assert targets.names([str(spec), "db", "web"]) == ["web", "db"]


def test_a_spec_does_not_mean_the_machine_of_another_project(spec: pathlib.Path) -> None:
    remember("mine")
    assert targets.names([str(spec)]) == ["web"]
    remember("theirs")
    with pytest.raises(errors.ConflictError, match="theirs"):
        targets.names([str(spec)])
    assert targets.names(["web"]) == ["web"]
