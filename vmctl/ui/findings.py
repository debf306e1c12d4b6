"""Shows what the doctor found: a table, then cause and fix of everything that is not well."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence

from vmctl.doctor.model import Finding, Level
from vmctl.ui import escape, palette, table, terminal

_WORDS = {Level.FAILURE: "fail"}
_INDENT = "  "


def show(findings: Sequence[Finding], *, closing: Iterable[str] = ()) -> None:
    """Print the findings, the explanations, and `closing` sentences, to standard output."""
    rows = [(each.code, each.title, _word(each.level), each.detail) for each in findings]
    table.show(("code", "check", "result", "detail"), rows, state="result")
    out = terminal.of(sys.stdout)
    blocks = [_explanation(codes, first, out) for codes, first in grouped(findings)]
    sentences = [_wrapped(sentence, out, "") for sentence in closing]
    for block in [*blocks, *sentences]:
        terminal.put(f"\n{block}")


def grouped(findings: Iterable[Finding]) -> list[tuple[list[str], Finding]]:
    """Return the bad findings, those with the same cause and fix together under their codes."""
    groups: dict[tuple[str, str], tuple[list[str], Finding]] = {}
    for finding in findings:
        if finding.bad:
            codes, _first = groups.setdefault((finding.cause, finding.fix), ([], finding))
            codes.append(finding.code)
    return list(groups.values())


def _word(level: Level) -> str:
    return _WORDS.get(level, str(level))


def _explanation(codes: Sequence[str], finding: Finding, out: terminal.Terminal) -> str:
    style = palette.BAD if finding.level is Level.FAILURE else palette.ATTENTION
    lines = [out.painted(f"{', '.join(codes)} {finding.title}", f"bold {style}")]
    lines.append(_wrapped(finding.cause, out, _INDENT))
    # Commands are not wrapped: a line break in the middle would break what is copied.
    lines.append(f"{_INDENT}{out.painted('fix:', palette.BUSY)} {escape.printable(finding.fix)}")
    return "\n".join(lines)


def _wrapped(text: str, out: terminal.Terminal, indent: str) -> str:
    return textwrap.fill(
        escape.one_line(text),
        max(out.width, 40),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
