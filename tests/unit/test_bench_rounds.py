"""The bench's rounds and tables: who runs when, what is kept, what is printed."""

from __future__ import annotations

import json
import pathlib
import random

import pytest

from bench import rounds, stages
from bench.results import Results, amount, comparisons, table
from bench.rounds import Contender, Group

SECONDS = "wall_seconds"


def group(baseline: str = "b") -> Group:
    return Group(
        title="t", baseline=baseline, metrics=(SECONDS, "disk_bytes"), notes={"a": "", "b": "x"}
    )


def contender(name: str, seconds: float, ran: list[str], **more: float) -> Contender:
    def run() -> dict[str, float]:
        ran.append(name)
        return {SECONDS: seconds, **more}

    return Contender(name, run)


def measured(count: int = 20) -> tuple[Group, list[str]]:
    ran: list[str] = []
    found = group()
    both = [contender("a", 0.5, ran, disk_bytes=2048.0), contender("b", 2.0, ran)]
    rounds.measure(found, both, count, random.Random(5), lambda _text: None)
    return found, ran


def test_each_round_has_everyone_once_and_the_warm_up_is_thrown_away() -> None:
    found, ran = measured(20)
    assert len(ran) == 2 * 21
    assert len(found.rounds) == 20
    assert all(sorted(ran[at : at + 2]) == ["a", "b"] for at in range(0, len(ran), 2))


def test_the_order_changes_between_rounds_and_is_kept() -> None:
    found, ran = measured(20)
    assert {each.order for each in found.rounds} == {("a", "b"), ("b", "a")}
    assert [name for each in found.rounds for name in each.order] == ran[2:]


def test_an_interruption_keeps_whole_rounds_only() -> None:
    ran: list[str] = []

    def fails() -> dict[str, float]:
        if len(ran) == 3:
            raise KeyboardInterrupt
        return {SECONDS: 1.0}

    found = group()
    with pytest.raises(KeyboardInterrupt):
        rounds.measure(
            found,
            [contender("a", 1.0, ran), Contender("b", fails)],
            10,
            random.Random(1),
            lambda _text: None,
        )
    assert found.rounds
    assert all(set(each.samples) == {"a", "b"} for each in found.rounds)


def test_a_table_has_medians_ratios_and_notes() -> None:
    found, _ = measured()
    text = "\n".join(table(found, seed=1))
    assert "| a | 500 ms | 500 ms | 0.25 (0.25 to 0.25) | 2 KiB |" in text
    assert "| b | 2.00 s | 2.00 s | 1 |  |" in text
    assert "* b: x" in text


def test_the_subject_is_compared_with_each_of_the_others() -> None:
    found, _ = measured()
    assert comparisons(found, seed=1) == []
    found.subject = "a"
    assert comparisons(found, seed=1) == ["* a / b: 0.25 (0.25 to 0.25), less"]
    assert comparisons(found, seed=1)[0] in table(found, seed=1)


def test_a_group_without_a_whole_round_says_so() -> None:
    assert table(group(), seed=1) == ["### t: no whole round"]


def test_results_survive_the_file(tmp_path: pathlib.Path) -> None:
    found, _ = measured(3)
    before = Results(host={"CPU": "some"}, seed=9, groups=[found])
    path = tmp_path / "sub" / "r.json"
    before.save(path)
    after = Results.load(path)
    assert after == before
    assert after.markdown() == before.markdown()
    assert "| CPU | some |" in after.markdown()


def test_another_format_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"format": 0}))
    with pytest.raises(ValueError, match="format 0"):
        Results.load(path)


@pytest.mark.parametrize(
    ("value", "metric", "expected"),
    [
        (0.0123, SECONDS, "12.3 ms"),
        (0.25, SECONDS, "250 ms"),
        (2.5, SECONDS, "2.50 s"),
        (196 * 1024.0, "x_bytes", "196 KiB"),
        (3 * 1024.0 * 1024, "x_bytes", "3 MiB"),
    ],
)
def test_amounts_have_units(value: float, metric: str, expected: str) -> None:
    assert amount(value, metric) == expected


def test_stages_are_listed_longest_first_with_their_share() -> None:
    found = Group(title="t", baseline=stages.TOTAL, metrics=(stages.METRIC,))
    stages.fill(found, [{"long": 0.3, "short": 0.1}, {"long": 0.3, "short": 0.1, "rare": 0.0}])
    assert found.names == ["long", "short", "rare", stages.TOTAL]
    assert "| long | 300 ms | 300 ms | 0.75 |" in table(found, seed=1)
