"""Puts the page together from summaries."""

from __future__ import annotations

import html
import pathlib
from collections.abc import Iterator, Sequence

from vmctl.lab import amount, caveat, checks, findings, summary
from vmctl.lab.page import sections
from vmctl.lab.results import State
from vmctl.lab.summary import Summary

# Nothing is loaded from anywhere, and a browser sees to that too.
_POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)
_STYLE = pathlib.Path(__file__).parent / "style.css"


def text(found: Sequence[Summary]) -> str:
    """Return the whole page: one comparison, or two side by side and then each of them."""
    body: list[str] = []
    if len(found) == 2:
        body += _both(*found)
    for each in found:
        body += _report(each)
    title = "What virtualization costs"
    if found and found[0].results.title:
        title += f": {found[0].results.title}"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            _POLICY,
            '<link rel="icon" href="data:,">',
            f"<title>{html.escape(title)}</title>",
            f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>",
            "</head>",
            "<body><main>",
            *body,
            "</main></body></html>",
            "",
        ]
    )


def _report(found: Summary) -> Iterator[str]:
    results = found.results
    yield "<h1>What virtualization costs</h1>"
    yield f'<p class="lead soft">{html.escape(results.title or "on this host")}</p>'
    yield from _chips(found)
    yield from _caveat(found)
    yield from sections.contents(found)
    yield from sections.cards(found)
    yield from _findings(found)
    yield from sections.overview(found)
    yield from sections.starts(found)
    yield from sections.workloads(found)
    yield from sections.isolation(found)
    yield from _notes(found)
    yield from sections.method(found)
    yield from sections.appendix(found)
    yield (
        f"<footer>Made by vmctl {html.escape(results.vmctl)} on "
        f"{html.escape(results.began)}, seed {results.seed}. Figures are of this host on this day; "
        "run <code>vmctl compare</code> for your own.</footer>"
    )


def _findings(found: Summary) -> Iterator[str]:
    sentences = list(findings.sentences(found))
    if sentences:
        items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
        yield f'<h2 id="findings">In words</h2><ul class="findings">{items}</ul>'


def _chips(found: Summary) -> Iterator[str]:
    results = found.results
    host = results.host
    chips = [
        f"KVM {host.get('kvm', '')}".strip(),
        f"{results.rounds} rounds",
        f"QEMU {host.get('qemu', '')}" if host.get("qemu") else "",
        f"libvirt {host.get('libvirt', '')}" if host.get("libvirt") else "",
        f"Linux {host.get('kernel', '')}" if host.get("kernel") else "",
    ]
    yield "<p>"
    if caveat.applies(results):
        yield f'<span class="chip alarm">{html.escape(caveat.SHORT)}</span>'
    if results.state is State.PARTIAL:
        yield f'<span class="chip alarm">partial: {html.escape(results.why)}</span>'
    if results.against_itself:
        count = len(found.winners)
        kind, said = ("", "no winner, as it must be") if not count else (" alarm", f"{count} false")
        yield f'<span class="chip{kind}">against itself: {said}</span>'
    for chip in chips:
        if chip.strip():
            yield f'<span class="chip">{html.escape(chip)}</span>'
    yield "</p>"


def _caveat(found: Summary) -> Iterator[str]:
    """Yield what the figures are not, where their processor is emulated."""
    sentences = caveat.sentences(found.results)
    if sentences:
        text = " ".join(html.escape(sentence) for sentence in sentences)
        yield f'<p class="panel caveat"><strong>Nested.</strong> {text}</p>'


def _notes(found: Summary) -> Iterator[str]:
    notes = list(checks.notes(found))
    if not notes:
        return
    yield '<h2 id="notes">Beside the literature</h2>'
    yield (
        '<p class="soft">Where published figures let expect a shape, this is how the figures here '
        "stand to it. These notes change nothing in the figures.</p>"
    )
    yield '<ul class="notes">'
    for note in sorted(notes, key=lambda note: note.within):
        kind = "fine" if note.within else "look"
        yield f'<li class="{kind}">{html.escape(note.text)}</li>'
    yield "</ul>"


def _both(left: Summary, right: Summary) -> Iterator[str]:
    names = [name for name in left.contenders if name in right.contenders]
    yield "<h1>Two hosts side by side</h1>"
    for letter, each in (("A", left), ("B", right)):
        yield f"<p><strong>{letter}</strong> {html.escape(each.results.title or 'unnamed')}</p>"
    for name in names:
        yield f"<h2>{html.escape(name)}</h2>"
        yield '<div class="panel"><table><thead><tr><th>workload</th>'
        yield '<th class="number">A</th><th class="number">B</th>'
        yield '<th class="number">B to A</th></tr></thead><tbody>'
        for row in left.rows:
            other = next((each for each in right.rows if each.workload == row.workload), None)
            first, second = row.cell(name), other.cell(name) if other else None
            if second is None or not (first.present and second.present):
                continue
            factor = summary.between_hosts(first, second)
            unit = row.workload.unit
            mark = " ≈" if factor.overlap else ""
            yield (
                f"<tr><td>{html.escape(row.workload.title)}</td>"
                f'<td class="number">{amount.text(first.median, unit)}</td>'
                f'<td class="number">{amount.text(second.median, unit)}</td>'
                f'<td class="number">{amount.times(factor.value)}{mark}</td></tr>'
            )
        yield "</tbody></table></div>"
    yield (
        '<p class="soft">The hosts were not measured in the same rounds: intervals of the medians '
        "that overlap are marked ≈, and nobody is declared a winner.</p>"
    )
