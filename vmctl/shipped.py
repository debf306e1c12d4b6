"""Finds the data that comes with vmctl: `templates/` and `images/`."""

from __future__ import annotations

import pathlib

_PACKAGE = pathlib.Path(__file__).parent


def directory(name: str) -> pathlib.Path:
    """Return the directory `name`, from the wheel or, in a checkout, from beside the package."""
    installed = _PACKAGE / "shipped" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name
