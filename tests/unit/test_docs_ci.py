"""What the pages and files about CI tell people to type is there."""

from __future__ import annotations

import importlib
import pathlib
import re
import shlex
import tomllib
from collections.abc import Iterator

import click
import pytest
import yaml

from vmctl.cli import gitlab, overview
from vmctl.runner.ci.garm_terms import Config

TOP = pathlib.Path(__file__).parents[2]
PAGES = [TOP / "docs" / "ci.md", *sorted((TOP / "docs" / "ci").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(#[^)]+)?\)")


def blocks(page: pathlib.Path, kind: str) -> Iterator[str]:
    for found, text in BLOCK.findall(page.read_text()):
        if found == kind:
            yield text


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target, _ in LINK.findall(page.read_text()):
            assert "://" in target or (page.parent / target).exists(), (page.name, target)


def runners() -> Iterator[dict[str, list[str]]]:
    texts = [
        *blocks(TOP / "docs/ci/gitlab.md", "toml"),
        (TOP / "docs/ci/gitlab-runner.toml").read_text(),
    ]
    for text in texts:
        for runner in tomllib.loads(text)["runners"]:
            assert runner["builds_dir"] and runner["cache_dir"]
            yield runner["custom"]


def test_the_runners_config_calls_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda _self, value, _parameter, _context: value)
    count = 0
    for custom in runners():
        for stage in ("config", "prepare", "run", "cleanup"):
            assert custom[f"{stage}_exec"] == "/usr/local/bin/vmctl"
            group, name, *words = custom[f"{stage}_args"]
            assert (group, name) == ("gitlab", stage)
            more = ["/tmp/script", "step_script"] if stage == "run" else []
            gitlab.gitlab.commands[name].make_context(name, [*words, *more])
            count += 1
    assert count == 8


def test_the_providers_configuration_is_valid(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "vmctl.toml"
    texts = [text for text in blocks(TOP / "docs/ci/garm.md", "toml") if "[flavors" in text]
    texts += [(TOP / "docs/ci/garm-vmctl.toml").read_text()]
    # What is offered as a comment must be right, too.
    texts += [re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE) for text in texts]
    for text in texts:
        path.write_text(re.sub(r"   # store = .*", "", text))
        assert "default" in Config.of(path).flavors
    assert len(texts) == 4


def test_every_option_of_run_that_is_shown_exists() -> None:
    command = importlib.import_module("vmctl.cli.runs").run
    known = {word for each in command.params for word in each.opts}
    shown = set()
    for page in (*PAGES, TOP / "action.yml"):
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(r"vmctl run [^\n]*(?:\n +--[^\n]*)*|options\+?=\([^)]*\)", text):
            shown |= set(re.findall(r"(?<= |\()--[a-z-]+(?=[ =\n)])", line.partition(" -- ")[0]))
    assert len(shown) > 8
    assert shown - known == set()


def test_the_action_hands_every_input_on() -> None:
    action = yaml.safe_load((TOP / "action.yml").read_text())
    steps = action["runs"]["steps"]
    text = str(steps)
    assert all(f"inputs.{name}" in text for name in action["inputs"])
    # What a person wrote into a workflow reaches the shell through the environment only.
    assert all("${{" not in step["run"] for step in steps)
    assert set(re.findall(r"\$([A-Z_]+)", steps[-1]["run"])) == set(steps[-1]["env"])
    for step in steps:
        assert shlex.split(step["run"], comments=True)


def test_every_command_of_the_overview_page_exists() -> None:
    text = (TOP / "docs" / "ci.md").read_text()
    for word in re.findall(r"`vmctl ([a-z-]+)", text):
        assert word in overview.names(), word
