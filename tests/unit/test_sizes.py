"""Sizes in words."""

from __future__ import annotations

import pytest

from vmctl import sizes


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert sizes.said(count) == text
