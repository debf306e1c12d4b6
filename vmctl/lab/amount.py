"""Numbers with units, as people read them."""

from __future__ import annotations

_SCALES = {
    "ns": ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")),
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "MiB/s": ((1024.0, "GiB/s"), (1.0, "MiB/s")),
    "ops/s": ((1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")),
    "MiB": ((1024.0, "GiB"), (1.0, "MiB")),
}

TIMES = "×"
_FRACTION = 0.0995
"""Below this a ratio has too few digits to be told as a decimal."""


def text(value: float, unit: str) -> str:
    """Return a value with three digits and the unit that suits its size."""
    scales = _SCALES.get(unit, ((1.0, unit),))
    for factor, name in scales:
        if abs(value) >= factor * 0.9995:
            return f"{digits(value / factor)} {name}"
    factor, name = scales[-1]
    return f"{digits(value / factor)} {name}"


def digits(value: float) -> str:
    """Return a number with three significant digits, without an exponent."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"


def times(ratio: float) -> str:
    """Return a ratio as a factor of three digits; small ones as fractions, 1/35."""
    if 0 < ratio < _FRACTION:
        return f"1/{digits(1 / ratio)}"
    return f"{digits(ratio)}{TIMES}"
