"""Turns plain data (as from JSON) back into frozen dataclasses, checking every type."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def decode(kind: type[T], data: Any) -> T:
    """Return a `kind` made from `data`; raises ValueError where a key or a type is wrong."""
    value = _decode(kind, data, kind.__name__)
    assert isinstance(value, kind)
    return value


def _decode(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, where)
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        (wanted,) = (each for each in arguments if each is not type(None))
        return _decode(wanted, data, where)
    if origin is tuple:
        items = _require(data, (list, tuple), where)
        return tuple(_decode(arguments[0], item, f"{where}[]") for item in items)
    if origin is collections.abc.Mapping:
        pairs = _require(data, dict, where).items()
        return {key: _decode(arguments[1], value, f"{where}.{key}") for key, value in pairs}
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:
        raise ValueError(f"{where}: {kind.__name__} expected, not {data!r}")
    return data


def _decode_dataclass(kind: Any, data: Any, where: str) -> Any:
    values = _require(data, dict, where)
    types_of = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    if strange := sorted(str(key) for key in values.keys() - names):
        raise ValueError(f"{where}: unknown key {strange[0]!r}")
    decoded = {
        key: _decode(types_of[key], value, f"{where}.{key}") for key, value in values.items()
    }
    try:
        return kind(**decoded)
    except TypeError as problem:
        raise ValueError(f"{where}: {problem}") from None


def _require(data: Any, kind: Any, where: str) -> Any:
    if not isinstance(data, kind):
        raise ValueError(f"{where}: cannot be {data!r}")
    return data
