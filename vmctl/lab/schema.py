"""The form of the file that `compare --json` writes, as a JSON Schema (draft 2020-12)."""

from __future__ import annotations

from typing import Any

from vmctl.lab.results import FORMAT

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_OBJECT = {"type": "object"}
_WORDS = {"type": "object", "additionalProperties": _TEXT}

_SAMPLE = {
    "type": "object",
    "description": "One slice: the mean of its operations, or one value taken from outside.",
    "required": ["workload", "value", "unit", "operations"],
    "additionalProperties": False,
    "properties": {
        "workload": _TEXT,
        "value": {"type": "number", "exclusiveMinimum": 0},
        "unit": {"enum": ["ns", "s", "MiB/s", "MiB", "ops/s"]},
        "operations": {"type": "integer", "minimum": 0},
    },
}

_RUN = {
    "type": "object",
    "description": "One start of one contender. Round 0 is the warm-up, which is in no figure.",
    "required": ["contender", "round", "place", "state", "samples"],
    "additionalProperties": False,
    "properties": {
        "contender": _TEXT,
        "round": {"type": "integer", "minimum": 0},
        "place": {"type": "integer", "minimum": 0, "description": "Where in the round's order."},
        "state": {"enum": ["ok", "void"]},
        "why": {**_TEXT, "description": "Why it is void."},
        "began": {**_TEXT, "description": "UTC, ISO 8601."},
        "load": {"type": "number", "description": "Load average of the last minute, before."},
        "samples": {"type": "array", "items": _SAMPLE},
        "missing": {**_WORDS, "description": "By workload: why there is no sample of it."},
        "facts": {**_WORDS, "description": "What the guest says: CPUID, clock, kernel."},
        "proof": {**_OBJECT, "description": "What libvirt's live XML and QEMU (query-kvm) say."},
    },
}

_CONTENDER = {
    "type": "object",
    "required": ["name", "mode", "state"],
    "additionalProperties": False,
    "properties": {
        "name": _TEXT,
        "mode": {
            "enum": ["host", "container", "paravirt", "hardware", "tcg-virtio", "full"],
        },
        "state": {"enum": ["ok", "refused"]},
        "why": {**_TEXT, "description": "Why it cannot run here."},
        "hint": _TEXT,
        "accel": _TEXT,
        "devices": _TEXT,
        "isolation": {**_TEXTS, "description": "What keeps it apart from the host."},
        "topology": {**_OBJECT, "description": "Processors, sockets, pinning."},
        "xml": {**_TEXT, "description": "The domain as it was started."},
        "argv": {**_TEXTS, "description": "QEMU's command line as it ran, or the runtime's."},
    },
}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Results of vmctl compare",
    "type": "object",
    "required": ["format", "state", "seed", "rounds", "workloads", "contenders", "runs"],
    "additionalProperties": False,
    "properties": {
        "format": {"const": FORMAT},
        "began": {**_TEXT, "description": "UTC, ISO 8601."},
        "seed": {"type": "integer", "description": "Of the order and of resampling."},
        "rounds": {"type": "integer", "minimum": 1, "description": "As many as were wanted."},
        "slice_seconds": {"type": "number"},
        "baseline": _TEXT,
        "against_itself": {"type": "boolean"},
        "state": {"enum": ["complete", "partial"]},
        "why": {**_TEXT, "description": "Why it is partial."},
        "seconds": {"type": "number"},
        "vmctl": _TEXT,
        "host": {**_OBJECT, "description": "Processor, versions, cgroups, load: see docs/lab.md."},
        "machine": {**_OBJECT, "description": "Image, digest, size of the machine."},
        "probe": {**_OBJECT, "description": "Digest, compiler and flags of the program."},
        "workloads": _TEXTS,
        "contenders": {"type": "array", "items": _CONTENDER},
        "runs": {"type": "array", "items": _RUN},
    },
}
