"""Sizes in bytes, as people write them."""

from __future__ import annotations

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
"""Binary, as in QEMU."""


def text(size: int) -> str:
    """Return a size in bytes in the largest unit that divides it."""
    for unit in reversed(UNITS):
        if size and size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]}{unit}iB"
    return f"{size} bytes"


def short(size: float) -> str:
    """Return a size in bytes in three digits or four, for tables: 912, 1.5K, 23M."""
    value, unit = float(size), ""
    for name in UNITS:
        if value < 1000:
            break
        value, unit = value / 1024, name
    return f"{value:.1f}{unit}" if unit and value < 10 else f"{value:.0f}{unit}"


def said(size: int) -> str:
    """Return a size in bytes as it stands in a sentence: 912 B, 1.5 KiB, 23.0 MiB."""
    if size < UNITS["K"]:
        return f"{size} B"
    unit = max((name for name in UNITS if UNITS[name] <= size), key=UNITS.__getitem__)
    return f"{size / UNITS[unit]:.1f} {unit}iB"
