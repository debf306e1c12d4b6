"""What GARM and the operator say: the environment, the bootstrap on stdin, the configuration file.

Source of the rules: GARM's documentation, "Writing an external provider", and the commands of its
provider library. The two interface versions differ in commands, not in what those mean.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import enum
import json
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

from vmctl import errors
from vmctl.runner.ci.offer import Offer, Sizes

VERSIONS = ("v0.1.0", "v0.1.1")
_LARGEST = 16 << 20


class Command(enum.StrEnum):
    """What GARM may ask for."""

    CREATE = "CreateInstance"
    DELETE = "DeleteInstance"
    GET = "GetInstance"
    LIST = "ListInstances"
    START = "StartInstance"
    STOP = "StopInstance"
    REMOVE_ALL = "RemoveAllInstances"
    VERSION = "GetVersion"
    INTERFACES = "GetSupportedInterfaceVersions"
    VALIDATE_POOL = "ValidatePoolInfo"
    CONFIG_SCHEMA = "GetConfigJSONSchema"
    EXTRA_SCHEMA = "GetExtraSpecsJSONSchema"

    @property
    def since_second_version(self) -> bool:
        """True for what interface v0.1.0 does not have."""
        return self in (
            Command.INTERFACES,
            Command.VALIDATE_POOL,
            Command.CONFIG_SCHEMA,
            Command.EXTRA_SCHEMA,
        )

    @property
    def of_one_instance(self) -> bool:
        """True for what needs GARM_INSTANCE_ID."""
        return self in (Command.DELETE, Command.GET, Command.START, Command.STOP)

    @property
    def needs_config(self) -> bool:
        """True for what the configuration file has a say in."""
        return not self.since_second_version or self is Command.VALIDATE_POOL


_OLD_NAMES = {"Start": Command.START, "Stop": Command.STOP}
"""As GARM's documentation calls them; its code does not."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of GARM's: what it wants, and for whom."""

    command: Command
    controller: str
    pool: str
    instance: str
    config: str
    extra_specs: str

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Call:
        """Read it from the environment; raises UsageError for what is missing or unknown."""
        word = env.get("GARM_COMMAND", "")
        if not word:
            raise errors.UsageError(
                "The environment has no GARM_COMMAND.",
                hint="This is a command for GARM, not for people: see docs/ci/garm.md",
            )
        version = env.get("GARM_INTERFACE_VERSION", "") or VERSIONS[0]
        if f"v{version.removeprefix('v')}" not in VERSIONS:
            raise errors.UsageError(
                f"Interface version '{version}' is not known.",
                hint=f"Set interface_version in GARM's config to one of: {', '.join(VERSIONS)}",
            )
        try:
            command = _OLD_NAMES.get(word) or Command(word)
        except ValueError:
            raise errors.UsageError(f"GARM_COMMAND '{word}' is not known.") from None
        if command.since_second_version and version.removeprefix("v") == "0.1.0":
            raise errors.UsageError(f"Interface v0.1.0 has no command '{word}'.")
        call = cls(
            command=command,
            controller=env.get("GARM_CONTROLLER_ID", ""),
            pool=env.get("GARM_POOL_ID", ""),
            instance=env.get("GARM_INSTANCE_ID", ""),
            config=env.get("GARM_PROVIDER_CONFIG_FILE", ""),
            extra_specs=env.get("GARM_POOL_EXTRASPECS", ""),
        )
        call.require()
        return call

    def require(self) -> None:
        """Raise UsageError where GARM left something out."""
        needed = {
            "GARM_PROVIDER_CONFIG_FILE": self.config or not self.command.needs_config,
            "GARM_CONTROLLER_ID": self.controller or self.command.since_second_version,
            "GARM_INSTANCE_ID": self.instance or not self.command.of_one_instance,
            "GARM_POOL_ID": self.pool or self.command is not Command.LIST,
        }
        for name, there in needed.items():
            if not there:
                raise errors.UsageError(f"{self.command} needs {name} in the environment.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """What GARM says of a runner to be made; `text` is all of it, with its secrets."""

    text: bytes = dataclasses.field(repr=False)
    name: str
    pool: str
    image: str
    flavor: str
    ca: bytes
    scripts: Mapping[str, bytes] = dataclasses.field(repr=False)
    values: Mapping[str, str] = dataclasses.field(repr=False)

    @classmethod
    def of(cls, text: bytes) -> Bootstrap:
        """Read it; raises UsageError for what is no bootstrap or cannot be done here."""
        data = _object(text, "What came on standard input")
        name = _text(data, "name")
        if not name:
            raise errors.UsageError("The bootstrap on standard input names no instance.")
        for key, right in (("os_type", "linux"), ("arch", "amd64")):
            if _text(data, key) not in ("", right):
                raise errors.UsageError(
                    f"Instance '{name}' wants {key} '{_text(data, key)}'; here there is "
                    f"'{right}' only."
                )
        tool = _tool(data)
        return cls(
            text=text,
            name=name,
            pool=_text(data, "pool_id"),
            image=_text(data, "image"),
            flavor=_text(data, "flavor"),
            ca=_certificates(data),
            scripts=extra_scripts(data.get("extra_specs") or {}),
            values={
                "GARM_NAME": name,
                "GARM_REPO_URL": _text(data, "repo_url"),
                "GARM_CALLBACK_URL": _text(data, "callback-url"),
                "GARM_METADATA_URL": _text(data, "metadata-url").rstrip("/"),
                "GARM_TOKEN": _text(data, "instance-token"),
                "GARM_JIT": "yes" if data.get("jit_config_enabled") is True else "",
                "GARM_TOOLS_URL": _text(tool, "download_url"),
                "GARM_TOOLS_SHA256": _text(tool, "sha256_checksum"),
                "GARM_TOOLS_TOKEN": _text(tool, "temp_download_token"),
            },
        )


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        data = json.loads(text) if len(text) <= _LARGEST else None
    except ValueError as problem:
        raise errors.UsageError(f"{what} is not JSON: {problem}.") from None
    if not isinstance(data, dict):
        raise errors.UsageError(f"{what} is not a JSON object.")
    return data


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise errors.UsageError(f"'{key}' of the bootstrap is not a text.")
    return value


def _certificates(data: Mapping[str, Any]) -> bytes:
    """Return the certificates that the controller is trusted by, which come as base64."""
    try:
        return base64.b64decode("".join(_text(data, "ca-cert-bundle").split()), validate=True)
    except (binascii.Error, ValueError):
        raise errors.UsageError("'ca-cert-bundle' of the bootstrap is not base64.") from None


def _tool(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what says where the runner program for this kind of machine is."""
    tools = data.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        if isinstance(tool, dict) and (tool.get("os"), tool.get("architecture")) == (
            "linux",
            "x64",
        ):
            return tool
    return {}


def extra_scripts(specs: object) -> dict[str, bytes]:
    """Return the scripts of a pool's extra specs, in the order of their names.

    Raises UsageError for every key that this provider would have to ignore.
    """
    if not isinstance(specs, dict):
        raise errors.UsageError("The pool's extra specs are not a JSON object.")
    unknown = sorted(set(specs) - {"pre_install_scripts"})
    if unknown:
        raise errors.UsageError(
            f"The pool's extra specs have '{unknown[0]}', which this provider does not know.",
            hint="It knows pre_install_scripts; for another way to install the runner, make a "
            "template in GARM: garm-cli template create",
        )
    scripts = specs.get("pre_install_scripts") or {}
    if not isinstance(scripts, dict):
        raise errors.UsageError(
            "'pre_install_scripts' of the pool's extra specs is not a JSON object.",
            hint='It maps names to base64: {"pre_install_scripts": {"first": "IyEvYmluL3NoCg=="}}',
        )
    found = {}
    for name, content in sorted(scripts.items()):
        try:
            found[str(name)] = base64.b64decode(content, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise errors.UsageError(
                f"The script '{name}' of the pool's extra specs is not base64."
            ) from None
    return found


def decoded_extra_specs(text: str) -> object:
    """Return GARM_POOL_EXTRASPECS, which is base64 or plain JSON, as data."""
    if not text:
        return {}
    try:
        plain = text.encode() if text.lstrip().startswith("{") else base64.b64decode(text)
        return json.loads(plain) or {}
    except (ValueError, binascii.Error):
        raise errors.UsageError("GARM_POOL_EXTRASPECS is neither JSON nor base64 of it.") from None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The file of the operator's that GARM names."""

    offer: Offer
    flavors: Mapping[str, Sizes]
    allow_tcg: bool = False
    connection: str | None = None
    store: str = ""
    runner_user: str = "runner"
    start: str = ""

    @classmethod
    def of(cls, path: pathlib.Path) -> Config:
        """Read the file; raises UsageError with the key that is wrong."""
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise errors.UsageError(f"'{path}' cannot be read: {problem}.") from None
        _check(data, CONFIG_KEYS, str(path))
        flavors = {"default": Sizes()}
        for name, table in data.get("flavors", {}).items():
            if not isinstance(table, dict):
                raise errors.UsageError(f"'flavors.{name}' in '{path}' is not a table.")
            _check(table, FLAVOR_KEYS, f"flavors.{name} in '{path}'")
            flavors[name] = Sizes(**table)
        return cls(
            offer=Offer(
                pools=tuple(data.get("pools", ())),
                images=tuple(data.get("images", ())),
                specs=data.get("specs", ""),
            ),
            flavors=flavors,
            allow_tcg=data.get("allow_tcg", False),
            connection=data.get("connection"),
            store=data.get("store", ""),
            runner_user=data.get("runner_user", "runner"),
            start=data.get("start", ""),
        )

    def sizes(self, flavor: str) -> Sizes:
        """Return what a flavour stands for; raises UsageError for one that is not there."""
        try:
            return self.flavors[flavor or "default"]
        except KeyError:
            raise errors.UsageError(
                f"There is no flavour '{flavor}'.",
                hint=f"The provider's configuration has: {', '.join(self.flavors)}",
            ) from None


_NAMES = {str: "string", bool: "boolean", int: "integer", list: "array", dict: "object"}
CONFIG_KEYS: dict[str, tuple[type, str]] = {
    "images": (list, "Patterns of the images that pools may name, as debian-*."),
    "pools": (list, "Pools of vmctl's, whose warm machines are asked for by the pool's name."),
    "specs": (str, "A directory of specs; a pool asks for NAME.yaml as image NAME."),
    "allow_tcg": (bool, "Emulated guests will do: every job is trusted."),
    "connection": (str, "The libvirt connection; vmctl's default otherwise."),
    "store": (str, "The directory of vmctl's store; vmctl's default otherwise."),
    "runner_user": (str, "Who runs the runner in the guest."),
    "start": (str, "A program of the guest that starts the runner, instead of GARM's script."),
    "flavors": (dict, "What a pool's flavour means: cpus, memory, disk, mode, nested."),
}
FLAVOR_KEYS: dict[str, tuple[type, str]] = {
    "cpus": (int, "Processors."),
    "memory": (str, "Memory, as 4GiB."),
    "disk": (str, "Size of the system disk, as 20GiB."),
    "mode": (str, "full, hardware, paravirt or auto."),
    "nested": (bool, "The guest gets VT-x or AMD-V of its own."),
}


def _check(data: Mapping[str, Any], keys: Mapping[str, tuple[type, str]], where: str) -> None:
    for key, value in data.items():
        if key not in keys:
            raise errors.UsageError(
                f"'{key}' in {where} is not known.", hint=f"Known are: {', '.join(keys)}"
            )
        kind = keys[key][0]
        texts = not isinstance(value, list) or all(isinstance(each, str) for each in value)
        if type(value) is not kind or not texts:
            raise errors.UsageError(f"'{key}' in {where} is not of type {_NAMES[kind]}.")


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file."""
    schema = _schema(CONFIG_KEYS)
    for name in ("images", "pools"):
        schema["properties"][name]["items"] = {"type": "string"}
    schema["properties"]["flavors"]["additionalProperties"] = _schema(FLAVOR_KEYS)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _schema(keys: Mapping[str, tuple[type, str]]) -> dict[str, Any]:
    properties: dict[str, Any] = {
        key: {"type": _NAMES[kind], "description": text} for key, (kind, text) in keys.items()
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def extra_specs_schema() -> dict[str, Any]:
    """Return the JSON Schema of a pool's extra specs."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "pre_install_scripts": {
                "type": "object",
                "description": "Scripts that root runs in the guest first: name and base64.",
                "additionalProperties": {"type": "string", "contentEncoding": "base64"},
            }
        },
    }
