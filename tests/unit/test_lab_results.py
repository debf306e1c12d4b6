"""The file of a comparison, and the rows made from it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import jsonschema
import pytest

from tests.unit.lab_samples import made
from vmctl import errors
from vmctl.lab import catalog, results, schema, summary
from vmctl.lab.decision import Outcome
from vmctl.lab.results import Run, Sample, State


def test_results_survive_the_file(tmp_path: pathlib.Path) -> None:
    before = made(3)
    path = tmp_path / "r.json"
    path.write_text(before.text())
    after = results.load(path)
    assert after == before
    assert after.text() == before.text()


def test_the_file_is_as_its_schema_says() -> None:
    data = json.loads(made(2).text())
    jsonschema.Draft202012Validator.check_schema(schema.SCHEMA)
    jsonschema.validate(data, schema.SCHEMA)
    fields = {field.name for field in dataclasses.fields(results.Results)}
    assert set(schema.SCHEMA["properties"]) == fields | {"format"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "other/1"}, "its format is 'other/1'"),
        ({"runs": 7}, "is no list"),
        ({"contenders": []}, "unknown contender"),
        ({"seed": "x"}, "seed is no whole number"),
        ({"state": "fine"}, "is not a valid State"),
        ({"host": []}, "host is no object"),
    ],
)
def test_a_file_that_is_something_else_is_refused(
    tmp_path: pathlib.Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**made(1).as_dict(), **change}))
    with pytest.raises(errors.UsageError, match=said):
        results.load(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"format": "vmctl-compare/1"}', "[" * 99999]
)
def test_what_is_no_results_at_all_is_refused(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(errors.UsageError):
        results.load(path)


def test_no_file_is_said() -> None:
    with pytest.raises(errors.NotFoundError):
        results.load("/nowhere/at/all.json")


def test_rows_have_medians_ratios_and_verdicts_without_the_warm_up() -> None:
    found = summary.summarise(made())
    row = next(row for row in found.rows if row.workload.name == "cpu-integer")
    full = row.cell("full")
    assert full.median == pytest.approx(1400, rel=0.1)
    assert full.ratio is not None
    assert full.ratio.value == pytest.approx(14, rel=0.1)
    assert full.outcome is Outcome.WORSE
    assert row.cell("container").outcome is Outcome.NO_WINNER
    assert row.cell("host").ratio is None


def test_throughput_is_worse_where_it_is_less() -> None:
    found = summary.summarise(made())
    row = next(row for row in found.rows if row.workload.name == "net-send")
    assert row.cell("full").outcome is Outcome.WORSE
    assert row.cell("full").ratio.value == pytest.approx(1 / 14, rel=0.1)  # type: ignore[union-attr]


def test_a_thing_against_itself() -> None:
    same = made(8, cost={"full A": 1.0, "full B": 1.0}, noise=0.1)
    same.against_itself = True
    found = summary.summarise(same)
    assert found.winners == []
    assert found.rows[0].cell("full A").ratio is None
    assert found.rows[0].cell("full B").ratio is not None


def test_a_void_run_is_in_no_figure_and_its_reason_is_told() -> None:
    found = made(3)
    sample = Sample(workload="timer", value=1e9, unit="ns")
    found.contenders.append(dataclasses.replace(found.contenders[0], name="odd"))
    found.runs.append(
        Run(
            contender="odd",
            round=1,
            place=9,
            state=State.VOID,
            why="asked for kvm",
            samples=(sample,),
        )
    )
    row = next(row for row in summary.summarise(found).rows if row.workload.name == "timer")
    assert not row.cell("odd").present
    assert row.cell("odd").missing == "asked for kvm"


def test_rounds_are_paired_by_their_number() -> None:
    found = made(4)
    found.runs = [run for run in found.runs if (run.contender, run.round) != ("full", 2)]
    ours, theirs = found.pairs("timer", "full", "host")
    assert len(ours) == len(theirs) == 3


def test_the_runs_value_is_the_median_of_its_slices() -> None:
    values = [Sample(workload="timer", value=each, unit="ns") for each in (1.0, 9.0, 2.0)]
    run = Run(contender="x", round=1, place=0, state=State.OK, samples=tuple(values))
    assert run.value("timer") == 2.0
    assert run.value("cpuid") is None


def test_words_and_groups_choose_workloads() -> None:
    chosen = catalog.named(["disk", "timer"], quick=True)
    assert [each.name for each in chosen] == ["timer", "disk-random", "disk-sequential"]
    assert catalog.named([]) == catalog.WORKLOADS
    assert all(each.quick for each in catalog.named([], quick=True))
    assert [each.name for each in catalog.named(["hackbench"], quick=True)] == ["hackbench"]
    assert "fio-random-1" in [each.name for each in catalog.named(["disk"])]
    with pytest.raises(errors.UsageError, match="'dsik'"):
        catalog.named(["dsik"])


def test_every_workload_is_explained() -> None:
    assert all(len(each.mechanism) > 40 for each in catalog.WORKLOADS)
    assert len(catalog.BY_NAME) == len(catalog.WORKLOADS)
