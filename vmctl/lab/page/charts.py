"""Charts as SVG inside the page: positions are in per cent, so that they fit any width. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from vmctl.lab import amount

_LOG_FROM = 8.0
"""From this spread on, an axis is logarithmic: on a linear one small values would be nothing."""

_ROOM_FOR_TEXT = 9.0
"""Per cent of the width from which on a bar has its length written into it."""

_MARGIN = 3.0
_SHAPES = {
    "host": "circle",
    "container": "square",
    "full": "triangle",
    "tcg-virtio": "diamond",
    "hardware": "turned",
    "paravirt": "cross",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to per cent of the width."""

    low: float
    high: float
    logarithmic: bool

    def place(self, value: float) -> float:
        """Return where a value stands, in per cent."""
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return _MARGIN + (100 - 2 * _MARGIN) * min(1.0, max(0.0, share))

    def ticks(self) -> list[float]:
        """Return round values within the axis: powers of ten where it is logarithmic."""
        if not self.logarithmic:
            return [self.low, self.high]
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        return [10.0**power for power in range(first, last + 1)]


def axis_of(values: Sequence[float]) -> Axis:
    """Return an axis for positive values: from 0 where they are near each other."""
    low, high = min(values), max(values)
    if high / low >= _LOG_FROM:
        return Axis(low / 1.25, high * 1.25, logarithmic=True)
    return Axis(0.0, high * 1.05, logarithmic=False)


def ratio_axis(values: Sequence[float]) -> Axis:
    """Return a logarithmic axis for ratios, with 1 in it and ends at powers of ten."""
    low = min([1.0, *values])
    high = max([1.0, *values])
    return Axis(
        10.0 ** math.floor(math.log10(low / 1.05)),
        10.0 ** math.ceil(math.log10(high * 1.05)),
        logarithmic=True,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A contender's value with its interval; `label` is what a reader is told on it."""

    mode: str
    value: float
    low: float
    high: float
    label: str


def ratios(points: Sequence[Point], axis: Axis) -> str:
    """Return one row of the overview: a mark for each contender, with its interval."""
    height = 14 + 9 * len(points)
    parts = [_gridline(axis, tick, height) for tick in axis.ticks()]
    for index, point in enumerate(points):
        parts.append(_mark(point, axis, 11.5 + 9 * index))
    label = "; ".join(point.label for point in points)
    return _svg(height, label, "".join(parts))


def ratio_scale(axis: Axis) -> str:
    """Return the row with the axis' numbers."""
    parts = []
    for tick in axis.ticks():
        text = f"{tick:g}×" if tick >= 1 else f"1/{1 / tick:g}"
        parts.append(f'<text x="{axis.place(tick):.2f}%" y="12" text-anchor="middle">{text}</text>')
    return _svg(16, "", "".join(parts))


def strip(
    mode: str, values: Sequence[float], middle: tuple[float, float, float], axis: Axis
) -> str:
    """Return a bar up to the median, the interval, and a dot for each round.

    `middle` is (low, median, high).
    """
    low, median, high = middle
    start = axis.place(axis.low)
    end = axis.place(median)
    parts = [
        f'<rect class="bar" x="{start:.2f}%" y="4" width="{end - start:.2f}%" height="14" rx="2"/>'
    ]
    parts.extend(
        f'<circle class="raw" cx="{axis.place(value):.2f}%" cy="11" r="2.6"/>' for value in values
    )
    parts.append(_whisker(axis.place(low), axis.place(high), 11))
    parts.append(
        f'<rect class="dot" x="{end:.2f}%" y="3" width="3" height="16" '
        'transform="translate(-1.5 0)"/>'
    )
    return _svg(22, "", "".join(parts), extra=f" own-{mode}")


def shape(mode: str) -> str:
    """Return a contender's mark for the legend."""
    inner = _shape(mode, "50%", 8)
    return f'<svg class="own-{mode}" viewBox="0 0 16 16" aria-hidden="true">{inner}</svg>'


def _mark(point: Point, axis: Axis, y: float) -> str:
    place = axis.place(point.value)
    whisker = _whisker(axis.place(point.low), axis.place(point.high), y)
    return (
        f'<g class="own-{point.mode}">{whisker}{_shape(point.mode, f"{place:.2f}%", y)}'
        f"<title>{point.label}</title></g>"
    )


def _shape(mode: str, x: str, y: float) -> str:
    """Return a mark that differs by form too, for prints and for those who see few colours."""
    kind = _SHAPES.get(mode, "circle")
    if kind == "circle":
        return f'<circle class="dot" cx="{x}" cy="{y}" r="4.5"/>'
    paths = {
        "square": "M-4,-4h8v8h-8z",
        "triangle": "M0,-5.2L5,4H-5z",
        "turned": "M0,5.2L5,-4H-5z",
        "diamond": "M0,-5.6L5.6,0L0,5.6L-5.6,0z",
        "cross": "M-1.8,-5h3.6v3.2h3.2v3.6h-3.2v3.2h-3.6v-3.2h-3.2v-3.6h3.2z",
    }
    # A nested svg takes a position in per cent, which a path cannot.
    return f'<svg x="{x}" y="{y}" overflow="visible"><path class="dot" d="{paths[kind]}"/></svg>'


def _whisker(low: float, high: float, y: float) -> str:
    return f'<line class="whisker" x1="{low:.2f}%" x2="{high:.2f}%" y1="{y}" y2="{y}"/>'


def _gridline(axis: Axis, tick: float, height: float) -> str:
    kind = "one" if tick == 1 else "grid"
    place = f"{axis.place(tick):.2f}%"
    return f'<line class="{kind}" x1="{place}" x2="{place}" y1="0" y2="{height}"/>'


def _svg(height: float, label: str, inner: str, *, extra: str = "") -> str:
    told = f'role="img" aria-label="{label}"' if label else 'aria-hidden="true"'
    return f'<svg class="plot{extra}" height="{height:g}" {told}>{inner}</svg>'


def bars(spans: Sequence[float], longest: float) -> str:
    """Return the stages of a start one after the other, as shares of the longest start."""
    parts = []
    for index, span in enumerate(spans, start=1):
        if span > 0:
            share = 100 * span / longest
            told = amount.text(span, "s")
            inside = told if share >= _ROOM_FOR_TEXT else ""
            parts.append(
                f'<span class="s{index}" style="width:{share:.2f}%" title="{told}">{inside}</span>'
            )
    return f'<div class="bars">{"".join(parts)}</div>'
