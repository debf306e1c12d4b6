"""The JSON Schema of a spec, for editors; made from the models."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from vmctl.spec import model, scalars

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """Return the schema of a spec file: one machine, or several under `vms`."""
    generated = model.MachineSpec.model_json_schema(schema_generator=_Plain)
    definitions = generated.pop("$defs")
    machine = {key: generated[key] for key in ("type", "additionalProperties", "properties")}
    _allow_image_name(machine["properties"])
    entry = {**machine, "properties": {**machine["properties"]}}
    del entry["properties"]["name"]
    definitions["MachineSpec"] = entry | {"description": "A machine under `vms`, or its defaults."}
    whole = {
        "description": "A virtual machine, or several under `vms`.",
        **machine,
        "properties": {**machine["properties"], **_file_properties(machine["properties"]["name"])},
        "if": {"required": ["vms"]},
        "then": {"propertyNames": {"enum": list(model.FILE_KEYS)}},
        "else": {"not": {"required": ["defaults"]}},
        "$defs": {name: definitions[name] for name in sorted(definitions)},
    }
    tidy: dict[str, Any] = _tidy(whole)
    return {"$schema": _DIALECT, "title": "vmctl spec", **tidy}


def text() -> str:
    """Return the schema as JSON text."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


class _Plain(GenerateJsonSchema):
    """Leaves out what editors do not need: titles, and `null` for keys that may be left out."""

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema without `null`: a key without a value is refused."""
        inner: dict[str, Any] = self.generate_inner(schema["schema"])
        return inner

    def default_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema with its default, if it has one that says something."""
        generated: dict[str, Any] = super().default_schema(schema)
        if generated.get("default", "") in ("", None, [], ()):
            generated.pop("default", None)
        return generated

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        """Say no: the title would repeat the key."""
        return False


def _tidy(definition: Any) -> Any:
    """Return the schema without titles: they would repeat the keys."""
    if isinstance(definition, list):
        return [_tidy(one) for one in definition]
    if not isinstance(definition, dict):
        return definition
    return {
        key: _tidy(value)
        for key, value in definition.items()
        if key != "title" or not isinstance(value, str)
    }


def _allow_image_name(properties: dict[str, Any]) -> None:
    """Let `image` be a name as well: the loader writes that out before the models see it."""
    image = properties["image"]
    mapping = {"$ref": image.pop("$ref")} if "$ref" in image else image.pop("allOf")[0]
    name = {"type": "string", "pattern": scalars.IMAGE_NAME, "maxLength": 63}
    image["anyOf"] = [name, mapping]


def _file_properties(name: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that stand at the top of a file only."""
    described = model.FILE_KEYS
    label = {key: value for key, value in name.items() if key != "description"}
    entry = {"$ref": "#/$defs/MachineSpec"}
    return {
        "project": {**label, "description": described["project"]},
        "base": {"type": "string", "minLength": 1, "description": described["base"]},
        "defaults": {**entry, "description": described["defaults"]},
        "vms": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": model.MOST_MACHINES,
            "propertyNames": label,
            "additionalProperties": {"anyOf": [entry, {"type": "null"}]},
            "description": described["vms"],
        },
    }
