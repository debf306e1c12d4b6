"""The commands validate, schema and init."""

import json
import os
import pathlib

import pytest
from click.testing import CliRunner

from vmctl import errors
from vmctl.cli import spec as commands
from vmctl.spec import load, problems, schema


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    directory = tmp_path / "lab"
    directory.mkdir()
    monkeypatch.chdir(directory)

    def run(command, *arguments):
        return CliRunner().invoke(command, list(arguments))

    return run


def test_validate_says_what_is_there(invoke):
    pathlib.Path("vmctl.yaml").write_text("image: tiny\ncount: 2\n")
    result = invoke(commands.validate)
    assert result.exit_code == 0
    assert result.output == "vmctl.yaml is valid: project 'lab', 2 machines: lab-1, lab-2.\n"


def test_validate_raises_all_problems(invoke):
    pathlib.Path("a.yaml").write_text("image: tiny\nmemroy: 1\n")
    result = invoke(commands.validate, "a.yaml", "--set", "cpus=0")
    assert isinstance(result.exception, problems.SpecError)
    assert len(result.exception.problems) == 2


def test_validate_in_json(invoke):
    pathlib.Path("vmctl.yaml").write_text("image: tiny\n")
    good = invoke(commands.validate, "--json", "--set", "memory=2GiB")
    data = json.loads(good.output)
    assert data["valid"] is True
    assert data["machines"][0]["memory"] == 2 << 30
    bad = invoke(commands.validate, "--json", "--set", "memory=2")
    assert bad.exit_code == 2
    data = json.loads(bad.output)
    assert (data["valid"], data["count"]) == (False, 1)
    assert data["problems"][0]["code"] == "size"


def test_validate_without_a_file(invoke):
    result = invoke(commands.validate)
    assert isinstance(result.exception, errors.NotFoundError)


def test_schema_is_printed(invoke):
    assert json.loads(invoke(commands.schema).output) == schema.schema()


def test_init_writes_a_valid_spec_once(invoke):
    result = invoke(commands.init)
    assert result.output == "Wrote vmctl.yaml. Run it with: vmctl up\n"
    assert load.load("vmctl.yaml").machines[0].name == "lab"
    pathlib.Path("vmctl.yaml").write_text("mine")
    refused = invoke(commands.init)
    assert isinstance(refused.exception, errors.ConflictError)
    assert "--force" in refused.exception.hint
    assert pathlib.Path("vmctl.yaml").read_text() == "mine"


def test_init_force_replaces_the_file_and_leaves_nothing_else(invoke):
    pathlib.Path("a b.yaml").write_text("mine")
    old_mask = os.umask(0o027)
    try:
        result = invoke(commands.init, "--force", "a b.yaml")
    finally:
        os.umask(old_mask)
    assert result.output == "Wrote a b.yaml. Run it with: vmctl up 'a b.yaml'\n"
    assert load.load("a b.yaml").machines
    assert os.listdir() == ["a b.yaml"]
    assert pathlib.Path("a b.yaml").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("file", ["no/such/dir.yaml", ".", "x" * 300, "a\0b"])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_init_says_why_it_cannot_write(invoke, file, force):
    result = invoke(commands.init, *force, file)
    assert isinstance(result.exception, errors.VmctlError)
    assert os.listdir() == []


def test_init_does_not_follow_a_link_that_is_there(invoke):
    os.symlink("elsewhere", "vmctl.yaml")
    result = invoke(commands.init)
    assert isinstance(result.exception, errors.ConflictError)
    assert not pathlib.Path("elsewhere").exists()
