"""What the standard tools print, recorded from real runs, and what is made of it."""

from __future__ import annotations

import pathlib

import pytest

from vmctl.lab import catalog, tools
from vmctl.lab.stream import Report

DATA = pathlib.Path(__file__).parents[1] / "data" / "lab"
RECORDED = [
    ("hackbench", "hackbench.txt", 0.154),
    ("sysbench-cpu", "sysbench-cpu.txt", 2176.64),
    ("sysbench-memory", "sysbench-memory.txt", 16389.81),
    ("stress-ng-cpu", "stress-ng-cpu.txt", 2660.92),
    ("sockperf", "sockperf.txt", 25486.0),
]


@pytest.mark.parametrize(("workload", "file", "value"), RECORDED)
def test_the_figure_is_found(workload: str, file: str, value: float) -> None:
    assert tools.BY_NAME[workload].understood((DATA / file).read_text()) == pytest.approx(value)


def test_fio_gives_latency_rate_and_throughput_from_one_output() -> None:
    text = (DATA / "fio-random.json").read_text()
    latency = tools.fio_latency(text)
    assert 1_000 < latency < 10_000_000
    assert tools.fio_rate(text) == pytest.approx(1e9 / latency, rel=0.2)
    assert tools.fio_throughput(text) == pytest.approx(tools.fio_rate(text) / 256, rel=0.01)


def test_fio_may_warn_before_its_json() -> None:
    text = (DATA / "fio-random.json").read_text()
    assert tools.fio_rate("fio: some warning\n" + text) == tools.fio_rate(text)


def test_iperf3_counts_what_arrived() -> None:
    assert tools.iperf3((DATA / "iperf3.json").read_text()) > 10


@pytest.mark.parametrize("tool", tools.TOOLS, ids=lambda tool: tool.workload)
@pytest.mark.parametrize("text", ["", "{}", "[]", "Killed", '{"jobs": []}', '{"end": {}}'])
def test_anything_else_is_a_reason_and_no_figure(tool: tools.Tool, text: str) -> None:
    report = Report()
    report.feed(f"vmctl-lab tool {tool.workload}\n{text}\nvmctl-lab status {tool.workload} 0\n")
    assert not report.samples
    assert tool.program in report.missing[tool.workload]


def test_a_failed_tool_is_told_with_its_last_words() -> None:
    report = Report()
    report.feed("vmctl-lab tool hackbench\nTime: 1.0\nout of memory\n")
    report.feed("vmctl-lab status hackbench 137\n")
    assert not report.samples
    assert "137" in report.missing["hackbench"]
    assert "out of memory" in report.missing["hackbench"]


def test_output_becomes_a_sample_with_the_workloads_unit() -> None:
    report = Report()
    report.feed("vmctl-lab tool hackbench\r\nTime: 1.25\r\n\r\nvmctl-lab status hackbench 0\r\n")
    assert [(each.workload, each.value, each.unit) for each in report.samples] == [
        ("hackbench", 1.25, "s")
    ]


def test_every_tool_is_in_the_catalogue_and_the_other_way_round() -> None:
    known = {each.name for each in catalog.WORKLOADS if each.tool not in ("probe", "vmctl")}
    assert known == set(tools.BY_NAME)
    assert not any(catalog.BY_NAME[name].quick for name in known)


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmctl.process.find", lambda _program: None)
    assert tools.absent(tools.TOOLS)["fio-random-1"] == "fio is not installed on this host"
