"""The page and the table: what stands in them, and that nothing gets out of its cell."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from tests.unit.lab_samples import made
from vmctl.lab import amount, catalog, checks, estimate, findings, summary
from vmctl.lab.page import charts, page
from vmctl.lab.results import Contender, Run, State
from vmctl.ui import comparison, terminal

PLAIN = terminal.Terminal(tty=False, moves=False, colour=False, unicode=True, width=80)
ASCII = dataclasses.replace(PLAIN, unicode=False)
_VOID_ELEMENTS = {"meta", "link", "rect", "circle", "line", "path", "br"}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "RESAMPLES", 100)


class Balance(HTMLParser):
    """Raises where an element is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID_ELEMENTS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID_ELEMENTS:
            assert self.open.pop() == tag


def test_every_element_is_closed_and_nothing_is_fetched() -> None:
    text = page.text([summary.summarise(made())])
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)
    assert "<script" not in text
    assert "url(" not in text


def test_every_workload_has_its_explanation_and_every_contender_its_isolation() -> None:
    text = page.text([summary.summarise(made())])
    for workload in catalog.WORKLOADS:
        assert f'id="w-{workload.name}"' in text
    assert "something &lt;keeps&gt; it apart" in text
    assert "guest=x y" in text
    assert "▼ worse" in text
    assert "≈ no difference shown" in text


def test_words_of_others_are_escaped() -> None:
    found = made(2)
    found.host["name"] = "<script>alert(1)</script>"
    found.why = found.contenders[0].name
    found.contenders.append(
        Contender(name="odd<b>", mode="hardware", state=State.REFUSED, why="<img src=x>")
    )
    text = page.text([summary.summarise(found)])
    assert "<script>" not in text
    assert "<img" not in text
    assert "odd&lt;b&gt;" in text


def test_partial_results_say_so_everywhere() -> None:
    found = made(2)
    found.state, found.why = State.PARTIAL, "it was interrupted"
    whole = summary.summarise(found)
    assert "partial: it was interrupted" in page.text([whole])
    assert "Partial: it was interrupted." in "\n".join(comparison.lines(whole, PLAIN))


@pytest.mark.parametrize("out", [PLAIN, ASCII])
def test_the_table_fits_eighty_columns(out: terminal.Terminal) -> None:
    cost = {"host": 1.0, "container": 1.1, "paravirt": 1.2, "hardware": 1.5, "full": 1e4}
    found = made(6, cost=cost)
    found.runs.append(
        Run(contender="full", round=1, place=0, state=State.VOID, why="a reason " * 20)
    )
    lines = list(comparison.lines(summary.summarise(found), out))
    assert max(map(len, lines)) <= 80
    assert not out.unicode or any("▼" in line for line in lines)
    assert sum("cpu-integer " in line and "Note" not in line for line in lines) >= 2


def test_the_table_says_what_was_not_run() -> None:
    found = made(1)
    found.contenders.append(
        Contender(name="paravirt", mode="paravirt", state=State.REFUSED, why="No KVM. Indeed.")
    )
    text = "\n".join(comparison.lines(summary.summarise(found), PLAIN))
    assert "paravirt: not run: No KVM." in text
    assert "too few rounds" in text


def test_two_hosts_side_by_side() -> None:
    left, right = summary.summarise(made()), summary.summarise(made(cost={"host": 2.0}))
    text = "\n".join(comparison.host_lines(left, right, PLAIN))
    assert re.search(r"cpu-integer +1\d\d ns|cpu-integer +\d+\.?\d* ns", text)
    assert "2.0" in text or "1.9" in text
    assert "full" not in text
    both = page.text([left, right])
    assert "Two hosts side by side" in both


def test_notes_never_change_figures_and_say_what_to_suspect() -> None:
    cost = {"host": 1.0, "full": 1.01}
    found = summary.summarise(made(6, cost=cost))
    before = found.rows
    notes = list(checks.notes(found))
    assert found.rows == before
    suspicious = [note for note in notes if not note.within]
    assert any("KVM" in note.text or "busy" in note.text for note in suspicious)


def test_a_silent_kvm_in_a_row_of_tcg_looks_odd() -> None:
    """TCG as fast as the host is not to be believed."""
    found = summary.summarise(made(6, cost={"host": 1.0, "full": 1.0}))
    odd = [note.text for note in checks.notes(found) if not note.within]
    assert any(text.startswith("cpu-integer: full") for text in odd)
    good = summary.summarise(made(6, cost={"host": 1.0, "full": 14.0}))
    assert not [note for note in checks.notes(good) if not note.within]


def test_only_what_was_decided_is_said_in_words() -> None:
    assert list(findings.sentences(summary.summarise(made(3, cost={"host": 1.0})))) == []
    said = " ".join(findings.sentences(summary.summarise(made())))
    assert "full: sorting costs 1" in said
    assert "container: sorting" not in said
    assert "container: no difference to the host is shown in" in said


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1.234, "ns", "1.23 ns"),
        (999.96, "ns", "1.00 µs"),
        (45_678.0, "ns", "45.7 µs"),
        (2.5e9, "ns", "2.50 s"),
        (0.0366, "s", "36.6 ms"),
        (31.2, "s", "31.2 s"),
        (2048.0, "MiB/s", "2.00 GiB/s"),
        (193.4, "MiB", "193 MiB"),
        (0.25, "MiB/s", "0.25 MiB/s"),
    ],
)
def test_amounts_have_three_digits_and_a_unit(value: float, unit: str, expected: str) -> None:
    assert amount.text(value, unit) == expected


@pytest.mark.parametrize(
    ("ratio", "expected"), [(1.0, "1.00×"), (140.2, "140×"), (0.5, "0.50×"), (0.01, "1/100")]
)
def test_ratios_keep_their_digits(ratio: float, expected: str) -> None:
    assert amount.times(ratio) == expected


def test_an_axis_holds_all_values_and_is_logarithmic_only_where_it_must_be() -> None:
    near, far = charts.axis_of([3.0, 5.0]), charts.axis_of([3.0, 500.0])
    assert not near.logarithmic
    assert far.logarithmic
    for axis, values in ((near, (3.0, 5.0)), (far, (3.0, 500.0))):
        places = [axis.place(value) for value in values]
        assert 0 <= places[0] < places[1] <= 100
    assert 1.0 in charts.ratio_axis([20.0, 300.0]).ticks()
