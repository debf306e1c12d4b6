"""Specs that are wrong, each with the text that a person sees; VMCTL_REGENERATE=1 rewrites it."""

import os
import pathlib

import pytest

from vmctl.spec import load, problems

SPECS = pathlib.Path(__file__).parent.parent / "data" / "specs"
BAD = sorted((SPECS / "bad").glob("*.yaml"))
GOOD = sorted((SPECS / "good").glob("*.yaml"))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_spec_gives_the_recorded_text(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with pytest.raises(problems.SpecError) as caught:
        load.load(path.name)
    text = problems.render(caught.value.problems, unseen=caught.value.unseen) + "\n"
    text = text.replace(str(path.parent.resolve().parents[3]), "TOP")
    golden = path.with_suffix(".txt")
    if os.environ.get("VMCTL_REGENERATE") == "1":
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
    assert caught.value.exit_code == 2


def test_every_recorded_text_has_its_spec():
    assert {path.stem for path in (SPECS / "bad").glob("*.txt")} == {path.stem for path in BAD}


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_spec_is_read(path):
    assert load.load(path).machines


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_every_problem_points_into_its_file(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with pytest.raises(problems.SpecError) as caught:
        load.load(path.name)
    for problem in caught.value.problems:
        lines = pathlib.Path(problem.file).read_bytes().decode("utf-8-sig", "replace").splitlines()
        assert 1 <= problem.line <= len(lines) + 1
        assert problem.column >= 1
        assert problem.message
        assert problem.code
