"""Shows the guided tour of a mode on a terminal."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence

from vmctl.lab import explain
from vmctl.lab.explain import Stop
from vmctl.machine import modes
from vmctl.machine.model import Machine
from vmctl.ui import escape, palette, terminal

_WIDEST = 100


def show(machine: Machine, stops: Sequence[Stop]) -> None:
    """Print the tour to standard output."""
    out = terminal.of(sys.stdout)
    for line in lines(machine, stops, out):
        terminal.put(line)


def lines(machine: Machine, stops: Sequence[Stop], out: terminal.Terminal) -> Iterator[str]:
    """Yield the lines of the tour."""
    width = min(out.width, _WIDEST)
    yield out.painted(f"Mode {machine.mode}", palette.HEADING)
    yield from _folded(f"{modes.MEANING[machine.mode]}.", width)
    yield from _folded(explain.rings(machine.accel), width)
    yield ""
    yield f"  {out.painted('spec  ', palette.QUIET)} {explain.spec_line(machine.mode)}"
    for number, stop in enumerate(stops, start=1):
        yield ""
        yield out.painted(f"{number}. {stop.title}", palette.HEADING)
        yield from _folded(stop.words, width)
        yield from _part("why", stop.reasons, width, out)
        yield from _part(
            "XML", [line for each in stop.xml for line in each.split("\n")], width, out
        )
        yield from _part("QEMU", stop.argv, width, out)
        yield from _part("guest", stop.guest, width, out)
    if not any(stop.guest for stop in stops):
        yield ""
        yield from _folded(
            "What a guest sees was not recorded for this mode: it needs a host with KVM.", width
        )
    yield from _holding(width, out)


def _holding(width: int, out: terminal.Terminal) -> Iterator[str]:
    yield ""
    yield out.painted("What holds the QEMU process", palette.HEADING)
    yield from _folded(explain.HOLDING, width)
    yield ""
    for each in (explain.Controller("limit", "cgroup v1", "cgroup v2"), *explain.CONTROLLERS):
        yield f"  {each.what:<26}{each.first:<26}{each.second}"
    yield ""
    yield out.painted("Type I, type II, and what is neither", palette.HEADING)
    for kind, meaning, who in explain.TYPES:
        yield from _folded(f"{kind}: {meaning} {who}.", width)
    yield ""
    yield from _folded("Measure what it costs: vmctl compare --quick", width)


def _part(name: str, content: Sequence[str], width: int, out: terminal.Terminal) -> Iterator[str]:
    """Yield a part with its name before its first line; nothing where it is empty."""
    first = True
    for each in content:
        for line in _kept(escape.one_line(each) if name != "XML" else each, width - 9):
            yield f"  {out.painted((name if first else '').ljust(6), palette.QUIET)} {line}"
            first = False


def _kept(line: str, width: int) -> list[str]:
    """Return a line in pieces that fit; its own indentation stays."""
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(
        line, width, subsequent_indent=f"{indent}  ", drop_whitespace=True, break_on_hyphens=False
    ) or [""]


def _folded(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", initial_indent="  ")
