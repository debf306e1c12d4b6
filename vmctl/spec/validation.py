"""Holds a tree against a model: every pydantic error becomes a Problem at the user's own line."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

import pydantic

from vmctl.spec import guest_scalars, model, nodes, problems, scalars, source
from vmctl.spec.strict import Strict

_MOST_EXPLAINED = 200
"""Errors beyond this number are counted only: looking for similar words takes time."""

Model = TypeVar("Model", bound=Strict)


class Findings:
    """The problems found so far; one place is not complained about by two stages."""

    def __init__(self) -> None:
        self._problems: list[problems.Problem] = []
        self._settled: set[tuple[str, int, int]] = set()
        self._unseen: set[tuple[str, int, int, str]] = set()

    def __len__(self) -> int:
        return len(self._problems)

    def add(self, problem: problems.Problem) -> None:
        """Take a problem, unless its place is settled."""
        where = (problem.file, problem.line, problem.column)
        if where in self._settled:
            return
        self._problems.append(problem)
        if not problem.line:
            # A --set holds for several machines, and would be wrong for each of them.
            self._settled.add(where)

    def settle(self, found: Iterable[problems.Problem]) -> None:
        """Take problems after which nothing else needs to be said about their places."""
        for problem in found:
            self.add(problem)
            self._settled.add((problem.file, problem.line, problem.column))

    def skip(self, place: nodes.Place, code: str) -> None:
        """Count a problem that is not shown."""
        self._unseen.add((place.text.name, place.line, place.column, code))

    def raise_any(self) -> None:
        """Raise SpecError if there is a problem."""
        if self._problems:
            raise problems.SpecError(self._problems, unseen=len(self._unseen))


def validate(read: source.Source, wanted: type[Model]) -> Model:
    """Return the model that a source holds. Raises SpecError with all problems."""
    found = Findings()
    found.settle(read.problems)
    result = check(read.root, wanted, found)
    found.raise_any()
    assert result is not None
    return result


def check(root: nodes.Mapping, wanted: type[Model], found: Findings) -> Model | None:
    """Return the model that a tree holds; None when problems were added to `found`."""
    bound = root.without(*model.FREE_KEYS)
    empty = [_without_value(place, node) for place, node in nodes.nulls(bound)]
    found.settle(empty)
    try:
        result = wanted.model_validate(root.data)
    except pydantic.ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)
        placed = sorted(((_place(root, one), one) for one in wrong), key=_position)
        for place, one in placed[:_MOST_EXPLAINED]:
            found.add(_explained(root, wanted, place, one))
        for place, one in placed[_MOST_EXPLAINED:]:
            found.skip(place, one["type"])
        return None
    return None if empty else result


def _position(placed: tuple[nodes.Place, Any]) -> tuple[str, int, int]:
    place = placed[0]
    return (place.text.name, place.line, place.column)


def _without_value(place: nodes.Place, node: nodes.Scalar) -> problems.Problem:
    shown = nodes.Place(place.text, place.line, place.column, max(1, place.length))
    return shown.problem(f"{subject(node.path)} has no value", code="no-value")


def _place(root: nodes.Mapping, error: Any) -> nodes.Place:
    location = error["loc"]
    if error["type"] == "extra_forbidden":
        parent, place, _ = nodes.find(root, location[:-1])
        if isinstance(parent, nodes.Mapping) and location[-1] in parent.entries:
            return parent.entries[location[-1]].key
        return place
    return nodes.find(root, location)[1]


def _explained(
    root: nodes.Mapping, wanted: type[Strict], place: nodes.Place, error: Any
) -> problems.Problem:
    """Return the Problem for one error of pydantic's."""
    location, code = error["loc"], error["type"]
    if code == "extra_forbidden":
        parent, _, _ = nodes.find(root, location[:-1])
        return unknown_key(str(location[-1]), parent, place, model_at(wanted, location[:-1]))
    node, _, _ = nodes.find(root, location)
    if code == "missing":
        message = f"key {problems.quoted(str(location[-1]))} is missing{_within(node.path)}"
        return place.problem(message, code="missing-key")
    message, suggestion = _wording(node, wanted, error)
    found = place.problem(
        f"{subject(node.path)} {message}", suggestion=suggestion, code=code.replace("_", "-")
    )
    # A secret is not shown again, not even to whoever wrote it: this ends up in logs.
    return (
        dataclasses.replace(found, source_line="") if code == guest_scalars.PRIVATE_KEY else found
    )


def _wording(node: nodes.Node, wanted: type[Strict], error: Any) -> tuple[str, str]:
    """Return what is wrong with the value of a node, and what to do."""
    context, code = error.get("ctx", {}), error["type"]
    got = scalars.shown(node.data)
    if "hint" in context:
        return context["text"], context["hint"]
    if code == "enum":
        return _choice(node, re.findall("'([^']*)'", context["expected"]))
    if code == "tuple_type":
        return f"must be a list; got {got}", ""
    if code in ("model_type", "dict_type"):
        example = model_at(wanted, error["loc"]).example
        return f"must be a mapping such as {example}; got {got}", ""
    if code == "greater_than_equal":
        return f"must be at least {context['ge']}; got {got}", ""
    if code == "less_than_equal":
        return f"must be at most {context['le']}; got {got}", ""
    if code == "too_long":
        length = len(node.items) if isinstance(node, nodes.Sequence) else 0
        return f"must have at most {context['max_length']} items; it has {length}", ""
    return f"is not valid ({error['msg']})", ""


def _choice(node: nodes.Node, choices: list[str]) -> tuple[str, str]:
    value = node.value if isinstance(node, nodes.Scalar) else ""
    if value in model.LATER_VALUES.get(str(node.path[-1]) if node.path else "", ()):
        return f"{problems.quoted(value)} is not supported yet", ""
    got = scalars.shown(node.data)
    message = f"must be one of {', '.join(choices)}; got {got}"
    return message, similar(value.lower(), choices)


def unknown_key(
    key: str, parent: nodes.Node, place: nodes.Place, owner: type[Strict]
) -> problems.Problem:
    """Return the problem of a key that the model `owner` does not have."""
    name = problems.quoted(key)
    if key in owner.later:
        return place.problem(f"key {name} is not supported yet", code="not-yet")
    if key in model.FILE_KEYS and parent.path:
        message = f"key {name} belongs at the top of the file, not{_within(parent.path)}"
        return place.problem(message, code="unknown-key")
    suggestion = ""
    if key in owner.synonyms:
        suggestion = f"did you mean '{owner.synonyms[key]}'?"
    else:
        known = [*owner.model_fields, *(() if parent.path else model.FILE_KEYS)]
        suggestion = similar(key.lower().replace("-", "_"), known)
    message = f"unknown key {name}{_within(parent.path)}"
    return place.problem(message, suggestion=suggestion, code="unknown-key")


def similar(word: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for the most similar of the known words, or nothing."""
    if len(word) > 64:
        return ""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean '{close[0]}'?" if close else ""


def model_at(wanted: type[Strict], location: nodes.Path) -> type[Strict]:
    """Return the model of the mapping that `location` leads to."""
    current = wanted
    for step in location:
        field = current.model_fields.get(step) if isinstance(step, str) else None
        inner = _model_within(field.annotation) if field else None
        current = inner or current
    return current


def _model_within(annotation: Any) -> type[Strict] | None:
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return annotation
    found = (_model_within(part) for part in typing.get_args(annotation))
    return next((one for one in found if one is not None), None)


def subject(path: nodes.Path) -> str:
    """Return how a message names the value at `path`: its key, with the index in a list."""
    keys = [number for number, step in enumerate(path) if isinstance(step, str)]
    if not keys:
        return "the file"
    return problems.printable(nodes.dotted(path[keys[-1] :])[:64])


def _within(path: nodes.Path) -> str:
    return f" in {problems.printable(nodes.dotted(path)[:100])}" if path else ""
