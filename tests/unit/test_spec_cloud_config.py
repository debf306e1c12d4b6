"""Plain values under cloud_init mean what they mean to cloud-init."""

from __future__ import annotations

import pytest
import yaml

from vmctl.spec import cloud_config, nodes


@pytest.mark.parametrize(
    "text",
    [
        *("yes", "No", "on", "OFF", "true", "False", "y", "n", "truest"),
        *("0644", "644", "-7", "0", "0x1F", "1.5", "12.", "08", "1_000", ".5", "1e3"),
        *("~", "null", "nulls", "text", "a b", "v1.2.3", "+5"),
    ],
)
def test_the_same_as_in_yaml_1_1(text: str) -> None:
    wanted = yaml.safe_load(f"- {text}")[0]
    if text in ("1_000", ".5"):
        wanted = text  # nobody means these
    assert cloud_config.value(nodes.Plain(text)) == wanted
    assert type(cloud_config.value(nodes.Plain(text))) is type(wanted)


@pytest.mark.parametrize("text", ["22:22", "1:30:00", "2026-11-20", "2026-11-20 10:00:00"])
def test_but_for_its_surprises(text: str) -> None:
    assert cloud_config.value(nodes.Plain(text)) == text


@pytest.mark.parametrize("text", ["yes", "0644", "~", "5"])
def test_quotes_make_text(text: str) -> None:
    assert cloud_config.value(text) == text


def test_everything_below_is_translated() -> None:
    tree: nodes.Data = {"a": [nodes.Plain("no"), {"b": nodes.Plain("1")}], "c": nodes.Plain("")}
    assert cloud_config.value(tree) == {"a": [False, {"b": 1}], "c": None}
