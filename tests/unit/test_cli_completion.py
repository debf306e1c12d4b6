"""Completion: scripts for three shells, names from the store."""

from __future__ import annotations

import pathlib

import click
import pytest
from click.testing import CliRunner

from vmctl.cli import app, completion


@pytest.fixture
def store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("VMCTL_HOME", str(tmp_path))
    for name in ("web-2", "web-1", "db", ".tmp-web-3"):
        (tmp_path / "machines" / name).mkdir(parents=True)
    return tmp_path


def complete(incomplete: str, taken: tuple[str, ...] = ()) -> list[str]:
    argument = click.Argument(["names"], nargs=-1)
    ctx = click.Context(click.Command("stop", params=[argument]))
    ctx.params["names"] = taken
    return [item.value for item in completion.machine_names(ctx, argument, incomplete)]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_each_shell_has_its_script(shell: str) -> None:
    result = CliRunner().invoke(app.group, ["completion", shell])
    assert result.exit_code == 0
    assert f"{app.COMPLETE_VARIABLE}={shell}_complete" in result.output
    assert "vmctl" in result.output


def test_other_shells_are_refused() -> None:
    assert CliRunner().invoke(app.group, ["completion", "tcsh"]).exit_code == 2


def test_names_come_from_the_store(store: pathlib.Path) -> None:
    assert completion.store_names() == ["db", "web-1", "web-2"]
    assert complete("web") == ["web-1", "web-2"]
    assert complete("", taken=("db", "web-1")) == ["web-2"]


def test_no_store_means_no_names(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMCTL_HOME", str(tmp_path / "missing"))
    assert completion.store_names() == []
    (tmp_path / "missing").write_text("a file")
    assert completion.store_names() == []


def test_what_is_no_name_is_a_file(store: pathlib.Path) -> None:
    argument = click.Argument(["targets"], nargs=-1)
    ctx = click.Context(click.Command("up", params=[argument]))
    items = completion.machines_and_specs(ctx, argument, "./we")
    assert [(item.value, item.type) for item in items] == [("./we", "file")]
    assert [item.value for item in completion.machines_and_specs(ctx, argument, "d")] == ["db"]
