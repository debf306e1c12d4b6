"""The kinds of value that are about the guest: its names, keys, paths, scripts and variables."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from vmctl.spec import cloud_config, public_key
from vmctl.spec.scalars import LONGEST_PATH, file_path, made_label, refusal, shown, string, text_of

_PART = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOSTNAME = rf"^{_PART}(\.{_PART})*$"
USER = r"^[a-z_][a-z0-9_-]{0,30}$"
"""Names that useradd(8) of every distribution takes."""
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
GUEST_PATH = r"^/[^\x00-\x1f\x7f]+$"
_LONGEST_HOSTNAME = 64
_LONGEST_SCRIPT = 256 << 10
_MOST_VARIABLES = 100
_LONGEST_VALUE = 32 << 10
_KERNELS_OWN = ("/proc", "/sys", "/dev", "/run")

PRIVATE_KEY = "private-key"
"""Code of problems whose line must not be shown: it holds a private key."""


def _hostname(value: object) -> str:
    text = text_of(value)
    if not re.fullmatch(HOSTNAME, text) or text.replace(".", "").isdigit():
        other = made_label(text)
        raise refusal(
            "hostname",
            f"must consist of letters, digits and '-', in parts joined by dots; got {shown(text)}",
            f"write '{other}'" if other and text.isascii() else "",
        )
    if len(text) > _LONGEST_HOSTNAME:
        raise refusal("hostname", f"must have at most {_LONGEST_HOSTNAME} characters")
    return text


def _user(value: object) -> str:
    text = text_of(value)
    if not re.fullmatch(USER, text):
        other = re.sub(r"[^a-z0-9_-]+", "-", text[:31].lower()).strip("-0123456789")
        raise refusal(
            "user",
            f"must be a login name of a-z, 0-9, '_' and '-', at most 31 characters; "
            f"got {shown(text)}",
            f"write '{other}'" if other and text.isascii() else "",
        )
    return text


def _ssh_key(value: object) -> str:
    text = text_of(value)
    if public_key.is_private(text):
        # The code keeps the user's line out of the message: it holds the secret.
        raise refusal(
            PRIVATE_KEY,
            "holds a PRIVATE key; it must not be shared with a machine",
            "write the .pub",
        )
    if not public_key.looks_like_one(text):
        return file_path(value)
    complaint = public_key.objection(text)
    if complaint:
        raise refusal("key", f"{complaint}; got {shown(text)}")
    return " ".join(text.split())


def _guest_path(value: object) -> str:
    text = text_of(value)
    parts = text.split("/")
    if not re.fullmatch(GUEST_PATH, text) or ".." in parts or "." in parts:
        raise refusal("path", f"must be an absolute path in the guest; got {shown(text)}")
    clean = "/" + "/".join(part for part in parts if part)
    if clean == "/" or any(clean == top or clean.startswith(f"{top}/") for top in _KERNELS_OWN):
        raise refusal("path", f"must be a directory of its own in the guest; got {shown(text)}")
    if len(clean) > LONGEST_PATH:
        raise refusal("path", f"must have at most {LONGEST_PATH} characters")
    return clean


def _script(value: object) -> str:
    text = text_of(value)
    if not text.strip():
        raise refusal("text", "must be a script; it is empty")
    if len(text) > _LONGEST_SCRIPT:
        raise refusal("text", f"must have at most {_LONGEST_SCRIPT // 1024} Ki characters")
    return text


def _variables(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise refusal("type", f"must be a mapping such as {{KEY: value}}; got {shown(value)}")
    if len(value) > _MOST_VARIABLES:
        raise refusal("too-many", f"must have at most {_MOST_VARIABLES} variables")
    for name, content in value.items():
        if not re.fullmatch(VARIABLE, name):
            raise refusal("name", f"has a variable that is no name: {shown(name)}")
        if not isinstance(content, str):
            raise refusal("type", f"must hold text; {name} is {shown(content)}")
        if len(content) > _LONGEST_VALUE:
            raise refusal("text", f"has a value of more than {_LONGEST_VALUE} characters: {name}")
    return {str(name): str(content) for name, content in value.items()}


def _cloud_config(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refusal(
            "type", f"must be a mapping such as {{packages: [nginx]}}; got {shown(value)}"
        )
    result: dict[str, Any] = cloud_config.value(value)
    return result


Hostname = Annotated[
    str,
    PlainValidator(_hostname),
    string("Hostname", pattern=HOSTNAME, maxLength=_LONGEST_HOSTNAME),
]
UserName = Annotated[str, PlainValidator(_user), string("UserName", pattern=USER)]
SshKey = Annotated[
    str,
    PlainValidator(_ssh_key),
    string("SshKey", minLength=1, maxLength=public_key.LONGEST, pattern=r"^[^~\n\t][^\n\t]*$"),
]
GuestPath = Annotated[
    str,
    PlainValidator(_guest_path),
    string("GuestPath", pattern=GUEST_PATH, maxLength=LONGEST_PATH),
]
Script = Annotated[
    str, PlainValidator(_script), string("Script", minLength=1, maxLength=_LONGEST_SCRIPT)
]
Variables = Annotated[
    dict[str, str],
    PlainValidator(_variables),
    WithJsonSchema(
        {
            "type": "object",
            "title": "Variables",
            "propertyNames": {"pattern": VARIABLE},
            "additionalProperties": {"type": ["string", "number", "boolean"]},
            "maxProperties": _MOST_VARIABLES,
        }
    ),
]
CloudConfig = Annotated[
    dict[str, Any],
    PlainValidator(_cloud_config),
    WithJsonSchema({"type": "object", "title": "CloudConfig"}),
]
