"""The `--set key=value` of the command line: `memory=2GiB`, `vms.web.cpus=2`, `disks.0.size=1G`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from vmctl.spec import model, nodes, problems, source, validation
from vmctl.spec.validation import Findings

_STEP = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST_STEPS = 8
_NAME = "--set"


@dataclasses.dataclass(frozen=True, slots=True)
class Override:
    """One value for one key; it counts more than everything in a file."""

    path: nodes.Path
    key: nodes.Place
    node: nodes.Node


def parse(arguments: Sequence[str], directory: str, found: Findings) -> list[Override]:
    """Return what the arguments say; relative paths in them begin in `directory`."""
    parsed = (_override(argument, directory, found) for argument in arguments)
    return [one for one in parsed if one is not None]


def _override(argument: str, directory: str, found: Findings) -> Override | None:
    key, equals, value = argument.partition("=")
    shown = problems.printable(key)
    name = f"{_NAME} '{shown[:60]}{'=…' if equals else ''}'"
    text = nodes.Text(name, (problems.printable(argument),), directory)
    place = nodes.Place(text, 0, 1, max(1, len(key)))
    steps = key.split(".")
    if not equals:
        message = "there is no '=' and no value"
        found.add(place.problem(message, suggestion="write --set memory=2GiB", code="set"))
        return None
    if len(steps) > _MOST_STEPS or not all(_STEP.fullmatch(step) for step in steps):
        message = f"{problems.quoted(key)} is no path of keys"
        suggestion = "write vms.web.memory, or disks.0.size"
        found.add(place.problem(message, suggestion=suggestion, code="set"))
        return None
    path = tuple(int(step) if re.fullmatch("[0-9]{1,3}", step) else step for step in steps)
    try:
        node = source.value(value, text, len(key) + 1, path)
    except problems.SpecError as error:
        found.settle(error.problems)
        return None
    return Override(path, place, node)


def for_machines(override: Override, root: nodes.Mapping) -> bool:
    """True for a key of a machine, in a file of several: it holds for all of them."""
    return "vms" in root.entries and override.path[0] not in model.FILE_KEYS


def applied(root: nodes.Mapping, override: Override, found: Findings) -> nodes.Mapping:
    """Return the tree with the value in its place."""
    refusal = _refusal(root, override)
    if refusal is not None:
        found.add(refusal)
        return root
    result = _put(root, override, 0, found)
    assert isinstance(result, nodes.Mapping)
    return result


def _refusal(root: nodes.Mapping, override: Override) -> problems.Problem | None:
    first, *rest = override.path
    if first == "base":
        return override.key.problem("'base' can only stand in a file", code="set")
    if first != "vms":
        return None
    machines = root.get("vms")
    names = list(machines.entries) if isinstance(machines, nodes.Mapping) else []
    if len(rest) < 2 or not names:
        message = "'vms' is followed by the name of a machine and a key"
        if not names:
            message = "the file has no 'vms'"
        return override.key.problem(message, code="set")
    if rest[0] in names:
        return None
    message = f"there is no machine {problems.quoted(str(rest[0]))}"
    suggestion = validation.similar(str(rest[0]), names)
    return override.key.problem(message, suggestion=suggestion, code="set")


def _put(node: nodes.Node | None, override: Override, depth: int, found: Findings) -> nodes.Node:
    """Return `node` with the value in it; `depth` is how many steps of its path led to it."""
    if depth == len(override.path):
        return override.node
    step, walked = override.path[depth], override.path[:depth]
    if node is None:
        node = _begun(step, override, walked)
    if isinstance(node, nodes.Mapping):
        key, last = str(step), depth + 1 == len(override.path)
        below = _put(node.get(key), override, depth + 1, found)
        place = node.entries[key].key if key in node.entries and not last else override.key
        return node.having({**node.entries, key: nodes.Entry(place, below)})
    if isinstance(node, nodes.Sequence) and isinstance(step, int) and step <= len(node.items):
        items = list(node.items)
        below = _put(items[step] if step < len(items) else None, override, depth + 1, found)
        items[step : step + 1] = [below]
        return nodes.Sequence(tuple(items), node.place, node.path)
    found.add(override.key.problem(_misfit(node, step, walked), code="set"))
    return node


def _begun(step: str | int, override: Override, path: nodes.Path) -> nodes.Node:
    """Return the empty list or mapping that a value is the first of."""
    if isinstance(step, int):
        return nodes.Sequence((), override.key, path)
    return nodes.Mapping({}, override.key, path)


def _misfit(node: nodes.Node, step: str | int, walked: nodes.Path) -> str:
    where = problems.quoted(nodes.dotted(walked))
    if isinstance(node, nodes.Sequence):
        if isinstance(step, int):
            return f"there is no item {step} in {where}; it has {len(node.items)}"
        return f"{where} is a list; write {nodes.dotted(walked)}.0 for its first item"
    return f"{where} is a single value and has no {problems.quoted(str(step))}"
