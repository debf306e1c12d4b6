"""The parts of the page, one function each."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterator

from vmctl.lab import amount, decision, estimate
from vmctl.lab.catalog import BY_NAME
from vmctl.lab.decision import Outcome
from vmctl.lab.page import charts
from vmctl.lab.results import State
from vmctl.lab.summary import Cell, Row, Summary, baseline_of
from vmctl.lab.workload import Group, Workload

_MEANING = {
    "host": "No isolation: the yardstick.",
    "container": "The host's kernel, seen through namespaces and held by cgroups.",
    "full": "Every instruction translated, every device emulated in software.",
    "tcg-virtio": "Every instruction translated; devices that know they are virtual.",
    "hardware": "The processor runs the guest; devices are emulated.",
    "paravirt": "The processor runs the guest; devices and clock know they are virtual.",
}
_CARD_ROWS = ("cpu-integer", "cpu-float", "system-call", "disk-random", "start-total")
_STAGES = ("start-vmm", "start-firmware", "start-kernel", "start-user-space")
_STAGE_WORDS = ("hypervisor or runtime", "firmware and loading", "kernel", "user space")
_VERDICTS = {
    Outcome.BETTER: ("better", "▲ better"),
    Outcome.WORSE: ("worse", "▼ worse"),
    Outcome.NO_WINNER: ("even", "≈ no difference shown"),
    Outcome.TOO_FEW: ("few", "? too few rounds"),
}


def contents(found: Summary) -> Iterator[str]:
    """Yield the links to the parts."""
    places = [("overview", "Overview"), ("starts", "From start to work")]
    groups = dict.fromkeys(row.workload.group for row in found.rows)
    places += [(group.value, group.heading) for group in groups if group is not Group.START]
    places += [("isolation", "What isolates each"), ("method", "Method"), ("appendix", "Raw data")]
    links = "".join(f'<a href="#{place}">{html.escape(word)}</a> ' for place, word in places)
    yield f"<nav>{links}</nav>"


def cards(found: Summary) -> Iterator[str]:
    """Yield a card for each contender with its most telling figures."""
    yield '<div class="cards">'
    for name in found.contenders:
        mode = _mode(found, name)
        yield f'<section class="card own-{mode}"><h3>{html.escape(name)}</h3>'
        yield f"<p>{html.escape(_MEANING.get(mode, ''))}</p><dl>"
        for row in found.rows:
            cell = row.cell(name)
            if row.workload.name in _CARD_ROWS and cell.present:
                shown = amount.text(cell.median, row.workload.unit)
                yield f"<dt>{row.workload.name}</dt><dd>{shown}</dd>"
        yield "</dl></section>"
    yield "</div>"
    for each in found.results.contenders:
        if each.state is State.REFUSED:
            yield (
                f'<p class="soft"><strong>{html.escape(each.name)}</strong> was not run: '
                f"{html.escape(each.why)}</p>"
            )


def legend(found: Summary) -> str:
    """Return the contenders with their marks."""
    items = "".join(
        f"<li>{charts.shape(_mode(found, name))}{html.escape(name)}</li>"
        for name in found.contenders
    )
    return f'<ul class="legend">{items}</ul>'


def overview(found: Summary) -> Iterator[str]:
    """Yield the chart of all ratios."""
    points = {row.workload.name: _points(found, row) for row in found.rows}
    values = [
        bound for row in points.values() for point in row for bound in (point.low, point.high)
    ]
    if not values:
        return
    axis = charts.ratio_axis(values)
    against = "its twin" if found.results.against_itself else found.results.baseline
    yield '<h2 id="overview">How many times as dear</h2>'
    yield (
        f"<p>Each mark says how many times as much an operation costs as with "
        f"<strong>{html.escape(against)}</strong> (dashed line): to the right is dearer, to the "
        "left cheaper. The scale is logarithmic: from one line to the next is a factor of ten. "
        "The bar through a mark is its interval.</p>"
    )
    yield legend(found)
    yield '<figure class="panel">'
    group = None
    for row in found.rows:
        if not points[row.workload.name]:
            continue
        if row.workload.group is not group:
            group = row.workload.group
            yield (
                f'<div class="plot-row head"><div class="name">{html.escape(group.heading)}</div>'
                f"{charts.ratio_scale(axis)}</div>"
            )
        yield (
            f'<div class="plot-row"><div class="name">{html.escape(row.workload.title)}</div>'
            f"{charts.ratios(points[row.workload.name], axis)}</div>"
        )
    yield "</figure>"


def _points(found: Summary, row: Row) -> list[charts.Point]:
    """Return the row's ratios, turned so that more is dearer."""
    points = []
    for cell in row.cells:
        ratio = cell.ratio
        if ratio is None:
            continue
        value, low, high = ratio.value, ratio.low, ratio.high
        if not row.workload.less_is_better:
            value, low, high = 1 / value, 1 / high, 1 / low
        points.append(
            charts.Point(
                mode=_mode(found, cell.contender),
                value=value,
                low=low,
                high=high,
                label=html.escape(f"{cell.contender}: {amount.times(value)}"),
            )
        )
    return points


def starts(found: Summary) -> Iterator[str]:
    """Yield the chart of what a start consists of, and its explanations."""
    rows = [row for row in found.rows if row.workload.group is Group.START]
    if not rows:
        return
    yield '<h2 id="starts">From start to work</h2>'
    yield (
        "<p>From the call that starts it until the job's first line. Where a start ends is said, "
        "because the same start looks half as long when it counts itself.</p>"
    )
    words = "".join(
        f'<li><span class="swatch s{index}"></span>{word}</li>'
        for index, word in enumerate(_STAGE_WORDS, start=1)
    )
    yield f'<ul class="legend">{words}</ul><figure class="panel">'
    by_name = {row.workload.name: row for row in rows}
    stages = {name: _stages(by_name, name) for name in found.contenders}
    longest = max((sum(spans) for spans in stages.values()), default=0.0) or 1.0
    for name, spans in stages.items():
        total = by_name["start-total"].cell(name) if "start-total" in by_name else None
        shown = amount.text(total.median, "s") if total is not None and total.present else "-"
        yield (
            f'<div class="stage"><strong>{html.escape(name)}</strong>'
            f'{charts.bars(spans, longest)}<span class="total">{shown}</span></div>'
        )
    yield "</figure>"
    for row in rows:
        yield from _workload(found, row)


def _stages(by_name: dict[str, Row], contender: str) -> list[float]:
    cells = [by_name[stage].cell(contender) for stage in _STAGES if stage in by_name]
    return [cell.median if cell.present else 0.0 for cell in cells]


def workloads(found: Summary) -> Iterator[str]:
    """Yield every other group of workloads."""
    for group in dict.fromkeys(row.workload.group for row in found.rows):
        if group is Group.START:
            continue
        yield f'<h2 id="{group.value}">{html.escape(group.heading)}</h2>'
        for row in found.rows:
            if row.workload.group is group:
                yield from _workload(found, row)


def _workload(found: Summary, row: Row) -> Iterator[str]:
    workload = row.workload
    values = [value for cell in row.cells for value in (*cell.values, cell.low, cell.high)]
    values = [value for value in values if value > 0]
    better = "less is better" if workload.less_is_better else "more is better"
    yield f'<section class="workload panel" id="w-{workload.name}"><header>'
    yield f"<h3>{html.escape(workload.title)}</h3><code>{workload.name}</code>"
    scale = ""
    if values and charts.axis_of(values).logarithmic:
        scale = ", logarithmic scale"
    yield f'<span class="soft">{better}{scale}</span></header>'
    yield (
        '<table><thead><tr><th></th><th>rounds</th><th class="number">median</th>'
        '<th class="number interval">95 % interval</th><th class="number">ratio</th>'
        "<th>verdict</th></tr></thead><tbody>"
    )
    for cell in row.cells:
        yield _cell(found, workload, cell, values)
    yield "</tbody></table>"
    yield f'<p class="why">{html.escape(workload.mechanism)}</p>'
    if workload.references:
        yield f'<p class="refs">{html.escape("; ".join(workload.references))}.</p>'
    yield "</section>"


def _cell(found: Summary, workload: Workload, cell: Cell, values: list[float]) -> str:
    mode = _mode(found, cell.contender)
    head = f'<tr class="own-{mode}"><td class="who">{html.escape(cell.contender)}</td>'
    if not cell.present:
        said = html.escape(f"not measured: {cell.missing}")
        return f'{head}<td class="none" colspan="5">{said}</td></tr>'
    unit = workload.unit
    strip = charts.strip(
        mode, cell.values, (cell.low, cell.median, cell.high), charts.axis_of(values)
    )
    interval = "-"
    if len(cell.values) >= estimate.FEWEST:
        interval = f"{amount.text(cell.low, unit)} to {amount.text(cell.high, unit)}"
    ratio, verdict = "", ""
    if cell.ratio is not None and cell.outcome is not None:
        ratio = amount.times(cell.ratio.value)
        kind, word = _VERDICTS[cell.outcome]
        verdict = f'<span class="{kind}">{word}</span>'
    elif cell.contender == baseline_of(found.results, cell.contender):
        verdict = '<span class="even">the yardstick</span>'
    return (
        f'{head}<td class="strip">{strip}</td>'
        f'<td class="number">{amount.text(cell.median, unit)}</td>'
        f'<td class="number interval">{interval}</td>'
        f'<td class="number">{ratio}</td><td>{verdict}</td></tr>'
    )


def isolation(found: Summary) -> Iterator[str]:
    """Yield what keeps each contender apart."""
    yield '<h2 id="isolation">What isolates each</h2>'
    yield '<div class="panel"><table class="wide"><thead><tr><th></th><th>by what</th></tr></thead>'
    yield "<tbody>"
    for each in found.results.contenders:
        if each.state is State.REFUSED:
            continue
        items = "".join(f"<li>{html.escape(line)}</li>" for line in each.isolation)
        yield (
            f'<tr class="own-{each.mode}"><td class="who">{html.escape(each.name)}</td>'
            f'<td><ul class="plain">{items}</ul></td></tr>'
        )
    yield "</tbody></table></div>"


def method(found: Summary) -> Iterator[str]:
    """Yield how it was measured, and what was left out."""
    results = found.results
    void = [run for run in results.runs if run.state is State.VOID]
    yield '<h2 id="method">How it was measured</h2>'
    yield (
        f"<p>{results.rounds} rounds. In each round every contender runs once, in an order drawn "
        f"anew (seed {results.seed}); a machine boots anew for it. One more round before the first "
        "is thrown away, and so is the first slice of each workload. A round's value is the median "
        f"of its slices of {amount.text(results.slice_seconds, 's')}; what is shown is the median "
        "of the rounds, with a bootstrap interval.</p>"
    )
    yield (
        "<p>The very same static binary runs everywhere. A plain disk takes it into the guest and "
        "a second serial port brings the answers out: both exist in every mode.</p>"
    )
    yield (
        "<p>A winner is declared only where the intervals do not overlap, the interval of the "
        "ratio does not contain 1, and an exact rank test holds after correction for all rows of "
        f"this page (Benjamini and Hochberg, {decision.SIGNIFICANCE:.0%}). Fewer than "
        f"{estimate.FEWEST} rounds give no interval and no winner.</p>"
    )
    yield (
        "<p>While each machine runs, libvirt's live XML and QEMU itself (query-kvm) are asked what "
        "executes it. A run that was not what it was meant to be is void and in no figure: "
        f"{len(void)} of {len(results.runs)} runs.</p>"
    )
    if void:
        items = "".join(
            f"<li>{html.escape(f'{run.contender}, round {run.round}: {run.why}')}</li>"
            for run in void
        )
        yield f"<ul>{items}</ul>"


def appendix(found: Summary) -> Iterator[str]:
    """Yield the host's facts, and each contender's XML and command line."""
    results = found.results
    yield '<h2 id="appendix">Host, and what exactly ran</h2><dl class="facts">'
    for facts in (results.host, results.machine, results.probe):
        for key, value in facts.items():
            if value not in ("", None, [], {}):
                told = html.escape(_fact(key, value))
                yield f"<dt>{html.escape(_fact_name(key))}</dt><dd>{told}</dd>"
    yield "</dl>"
    for each in results.contenders:
        if each.argv:
            line = html.escape(shlex.join(each.argv))
            yield (
                f"<details><summary>Command line of {html.escape(each.name)}</summary>"
                f"<pre>{line}</pre></details>"
            )
        if each.xml:
            yield (
                f"<details><summary>Domain XML of {html.escape(each.name)}</summary>"
                f"<pre>{html.escape(each.xml)}</pre></details>"
            )
    rows = [name for name in results.workloads if name not in BY_NAME]
    if rows:
        yield f'<p class="soft">Not shown, because unknown: {html.escape(", ".join(rows))}.</p>'


def _fact_name(key: str) -> str:
    return key.removesuffix("_bytes").replace("_", " ")


def _fact(key: str, value: object) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        return amount.text(value / (1 << 20), "MiB")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _mode(found: Summary, name: str) -> str:
    return next((each.mode for each in found.results.contenders if each.name == name), "host")
