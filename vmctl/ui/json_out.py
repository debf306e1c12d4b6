"""Prints data for programs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from vmctl.ui import terminal


def emit(data: object) -> None:
    """Print `data` to standard output as indented JSON, keys in the order of the data.

    Everything outside ASCII is escaped: lone surrogates (file names that are not UTF-8) and control
    characters of guests pass through any encoding and any terminal unharmed.
    """
    terminal.put(text(data))


def text(data: object) -> str:
    """Return what `emit` prints, without the newline."""
    return json.dumps(plain(data), indent=2, ensure_ascii=True, allow_nan=False)


def plain(data: object) -> Any:  # noqa: PLR0911  (one line for each kind of data)
    """Return `data` as what JSON knows; raises TypeError for a kind that has no form in it."""
    match data:
        case enum.Enum():
            return plain(data.value)
        case None | bool() | int() | str():
            return data
        case float():
            return data if math.isfinite(data) else None
        case Mapping():
            return {_key(key): plain(value) for key, value in data.items()}
        case list() | tuple():
            return [plain(item) for item in data]
        case set() | frozenset():
            return sorted((plain(item) for item in data), key=str)
        case os.PathLike():
            return os.fspath(data)
        case dt.datetime() | dt.date():
            return data.isoformat()
        case bytes():
            return data.decode("utf-8", "backslashreplace")
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        fields = dataclasses.fields(data)
        return {field.name: plain(getattr(data, field.name)) for field in fields}
    raise TypeError(f"{type(data).__name__} has no form in JSON")


def _key(key: object) -> str:
    simple = plain(key)
    return simple if isinstance(simple, str) else json.dumps(simple)
