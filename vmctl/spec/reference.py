"""Writes `docs/spec.md` and `docs/vmctl.schema.json` out of the models.

Run it after every change of the models: `python -m vmctl.spec.reference [DIRECTORY]`.
"""

from __future__ import annotations

import enum
import pathlib
import sys
import typing
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import WithJsonSchema

from vmctl import shipped
from vmctl.spec import model, schema
from vmctl.spec.resources import ResourcesSpec
from vmctl.spec.strict import Strict

_INTRO = """\
# The spec

<!-- Made from the models by `python -m vmctl.spec.reference`; do not edit. -->

A spec is one YAML file. The keys of one machine stand at its top; several machines stand under
`vms`, and what they share under `defaults`. `vmctl validate` shows every problem of a file,
`vmctl schema` prints the JSON Schema for editors ([vmctl.schema.json](vmctl.schema.json)).

```yaml
name: web
image: tiny
mode: auto
cpus: 2
memory: 2GiB
forwards:
  - {host: 8080, guest: 80}
```

For an editor with a YAML language server, the first line of a spec may name the schema:
`# yaml-language-server: $schema=docs/vmctl.schema.json`

"""

_RULES = f"""\
## How a file is read

* Values stay as they were written; the key decides whether it is a number. `22:22`, `no`, `0600`,
  `12.10` and MAC addresses need no quotes. True and false are `true` and `false`.
* Sizes have a unit and are binary: `512MiB` or `512M`, `4GiB` or `4G`; `GB` is refused. Durations
  are `90s`, `5m`, `1h`.
* Names are RFC 1123 labels: 1 to 63 of `a-z`, `0-9` and `-`, not beginning or ending with `-`, not
  a number, not shaped like a UUID.
* Unknown and duplicate keys, keys without a value, anchors, aliases, merge keys, tags, several
  documents, and control characters are errors. A file has at most 1 MiB and is UTF-8.
* Layers, each laid over those before it: `base`, the file, `defaults`, the machine under `vms`,
  `--set`. Mappings are laid over each other key by key; lists and `image` are replaced.
* `--set` takes a path of keys: `--set memory=2GiB`, `--set vms.web.cpus=2`,
  `--set disks.0.size=1GiB`. In a file of several machines, a key of a machine is set for all.
* Files that a spec names lie in its directory, symbolic links followed, or are refused without
  `--allow-outside`. Relative paths begin at the file in which they stand.
* Plain values under `cloud_init` mean what they mean to cloud-init (YAML 1.1): `yes` is true and
  `0644` is octal; only `22:22` and dates stay text. [cloud-init.md](cloud-init.md) says how it is
  laid over what vmctl generates.
* `ready.pattern` has at most two of `*` and `+` and nothing that backtracks without bound. It is
  searched in each line of the console.
* A file makes at most {model.MOST_MACHINES} machines.

"""

_SECTIONS: tuple[tuple[str, type[Strict]], ...] = (
    ("image", model.ImageSpec),
    ("disks", model.DiskSpec),
    ("networks", model.NetworkSpec),
    ("forwards", model.ForwardSpec),
    ("mounts", model.MountSpec),
    ("provision", model.ProvisionSpec),
    ("resources", ResourcesSpec),
    ("ready", model.ReadySpec),
    ("snapshots", model.SnapshotsSpec),
)


_WORDS = {str: "text", int: "number", bool: "`true`, `false`", float: "number"}

_TITLES = {
    "Address": "IPv4 address",
    "CloudConfig": "mapping",
    "CpuList": "list of processors",
    "Description": "text",
    "Duration": "duration",
    "FilePath": "path",
    "GuestPath": "path",
    "Hostname": "name",
    "ImageName": "name",
    "Interface": "name",
    "Label": "name",
    "MacAddress": "MAC address",
    "Pattern": "regular expression",
    "Percent": "percent",
    "Rate": "size each second",
    "Script": "text",
    "Size": "size",
    "SshKey": "public key or path",
    "UserName": "name",
    "Variables": "mapping",
}


def text() -> str:
    """Return the reference in Markdown."""
    parts = [_INTRO, "## Keys of a machine\n\n", _table(model.MachineSpec)]
    for key, section in _SECTIONS:
        parts.append(f"## `{key}`\n\n{section.__doc__}\n\n`{key}: {_example(key, section)}`\n\n")
        parts.append(_table(section))
    parts += ["## Keys at the top of a file\n\n", _file_table(), _RULES, _later(), _templates()]
    return "".join(parts).rstrip("\n") + "\n"


def _example(key: str, section: type[Strict]) -> str:
    many = key in ("disks", "networks", "forwards", "mounts", "provision")
    return f"[{section.example}]" if many else section.example


def _table(owner: type[Strict]) -> str:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, field in owner.model_fields.items():
        default = "required" if field.is_required() else _default(field)
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(
            f"| `{key}` | {_kind(field.annotation, field.metadata)} | {default} | {meaning} |"
        )
    return "\n".join(rows) + "\n\n"


def _default(field: Any) -> str:
    extra = field.json_schema_extra or {}
    value = extra.get("default", field.default)
    if isinstance(value, list):
        return "`[{kind: user}]`"
    if value in ("", None, (), {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return how people call the type of a key."""
    if annotation is model.ImageSpec:
        return "name or mapping"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return "mapping"
    titles = [one.json_schema.get("title", "") for one in metadata if _has_schema(one)]
    if titles and titles[0] in _TITLES:
        return _TITLES[titles[0]]
    if annotation in _WORDS:
        return _WORDS[annotation]
    if typing.get_origin(annotation) is tuple:
        return f"list of {_plural(_kind(typing.get_args(annotation)[0]))}"
    if typing.get_origin(annotation) is Annotated:
        return _kind(annotation.__origin__, annotation.__metadata__)
    return _kind(next(one for one in typing.get_args(annotation) if one is not type(None)))


def _plural(kind: str) -> str:
    words = (f"{word}es" if word.endswith("s") else f"{word}s" for word in kind.split(" or "))
    return " or ".join(words)


def _has_schema(metadata: Any) -> bool:
    return isinstance(metadata, WithJsonSchema) and metadata.json_schema is not None


def _file_table() -> str:
    rows = ["| key | meaning |", "|---|---|"]
    rows += [f"| `{key}` | {meaning} |" for key, meaning in model.FILE_KEYS.items()]
    return "\n".join(rows) + "\n\n"


def _later() -> str:
    keys = sorted(model.MachineSpec.later) + [
        f"image.{key}" for key in sorted(model.ImageSpec.later)
    ]
    listed = ", ".join(f"`{key}`" for key in keys)
    return (
        "## Not supported yet\n\n"
        f"These keys are planned and refused by name: {listed}; also `address` on networks of kind "
        "`network`.\n\n"
    )


def _templates() -> str:
    rows = ["## Templates\n", "| file | what it shows |", "|---|---|"]
    for path in sorted(shipped.directory("templates").glob("*.yaml")):
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        rows.append(f"| `templates/{path.name}` | {first} |")
    return "\n".join(rows) + "\n"


def write(directory: pathlib.Path) -> None:
    """Write both files."""
    (directory / "spec.md").write_text(text(), encoding="utf-8")
    (directory / "vmctl.schema.json").write_text(schema.text(), encoding="utf-8")


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
