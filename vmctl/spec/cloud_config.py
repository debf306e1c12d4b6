"""The free mapping of `cloud_init:`: plain values mean what they mean to cloud-init itself."""

from __future__ import annotations

import re
from typing import Any

from vmctl.spec import nodes

APPENDED = (
    "users",
    "write_files",
    "bootcmd",
    "runcmd",
    "packages",
    "mounts",
    "ssh_authorized_keys",
)
"""Lists of a #cloud-config: the user's items come after vmctl's own."""

_TRUE = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_OCTAL = re.compile(r"[-+]?0o?[0-7]+")
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_HEXADECIMAL = re.compile(r"[-+]?0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{0,18}")


def value(data: nodes.Data) -> Any:
    """Return a value of the spec as cloud-init's YAML 1.1 would read it.

    Two of its surprises are left out: `22:22` stays text instead of a number in base 60, and dates
    stay text.
    """
    if isinstance(data, dict):
        return {str(key): value(item) for key, item in data.items()}
    if isinstance(data, list):
        return [value(item) for item in data]
    if not isinstance(data, nodes.Plain):
        return str(data)
    return _plain(str(data))


def _plain(text: str) -> Any:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if text in _NULL:
        return None
    if _DECIMAL.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text.replace("o", ""), 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    return float(text) if _FLOAT.fullmatch(text) else text
