"""Says in plain words what a YAML parser complains about; libyaml and PyYAML differ in theirs."""

from __future__ import annotations

import re

_PHRASES: tuple[tuple[str, str], ...] = (
    ("tab character", "a tab is used for indentation; use spaces"),
    ("mapping values are not allowed", "a ':' stands where no key can be"),
    ("block sequence entries are not allowed", "a '-' stands where no list item can be"),
    ("unexpected end of stream", "a quote is opened and never closed"),
    ("unexpected document (indicator|separator)", "a quote is opened and never closed"),
    ("expected ':'", "a ':' is missing after this key"),
    ("expected ',' or '\\]'", "a ',' or the closing ']' is missing"),
    ("expected ',' or '\\}'", "a ',' or the closing '}' is missing"),
    ("expected (the )?node content", "a value is missing here"),
    ("expected key|block mapping", "this line does not fit the lines above it"),
    ("expected '-'|block collection", "a '-' is missing, or the indentation is wrong"),
    ("escape (character|code|sequence)|hexdecimal", "this escape sequence does not exist"),
    ("expected <document start>", "this line does not fit the lines above it"),
    ("tag|directive|incompatible", "tags and directives are not supported"),
    ("alphabetic or numeric", "anchors and aliases are not supported"),
    ("block scalar", "'|' and '>' must end their line; put quotes around the value"),
)

_SUGGESTIONS = {
    "a ':' stands where no key can be": (
        "check the indentation; put quotes around a value that contains ': '"
    ),
    "this line does not fit the lines above it": "check its indentation",
    "this escape sequence does not exist": "write a backslash in single quotes: '\\d'",
}


def explain(complaint: str, context: str, char: str) -> tuple[str, str]:
    """Return message and suggestion for a parser's complaint about the character `char`."""
    if "cannot start any token" in complaint:
        if char == "\t":
            return "a tab is used for indentation", "use spaces"
        return f"a value cannot begin with '{char}'", "put quotes around the value"
    for text in (complaint, context):
        for pattern, phrase in _PHRASES:
            if re.search(pattern, text):
                return phrase, _SUGGESTIONS.get(phrase, "")
    return f"this is not valid YAML ({complaint or 'cannot be read'})", ""
