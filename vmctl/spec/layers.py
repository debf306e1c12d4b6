"""Lays what was written in several places over each other: base, file, defaults and entries."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vmctl import errors
from vmctl.spec import model, nodes, paths, problems, scalars, source, validation
from vmctl.spec.validation import Findings

_MOST_BASES = 8
_FILE_KEYS = tuple(model.FILE_KEYS)


def normal(root: nodes.Mapping) -> nodes.Mapping:
    """Return the tree with its short forms written out: `image: tiny`, and a machine without keys.

    What replaces them keeps the places of what was written.
    """
    entries = dict(_named_image(root).entries)
    defaults, machines = root.get("defaults"), root.get("vms")
    if isinstance(defaults, nodes.Mapping):
        entries["defaults"] = nodes.Entry(root.entries["defaults"].key, _named_image(defaults))
    if isinstance(machines, nodes.Mapping):
        written = {name: _machine(entry) for name, entry in machines.entries.items()}
        entries["vms"] = nodes.Entry(root.entries["vms"].key, machines.having(written))
    return root.having(entries)


def _machine(entry: nodes.Entry) -> nodes.Entry:
    key, node = entry
    if isinstance(node, nodes.Scalar) and node.null:
        return nodes.Entry(key, nodes.Mapping({}, key, node.path))
    if isinstance(node, nodes.Mapping):
        # What is wrong with a machine as a whole is shown at its name.
        return nodes.Entry(key, nodes.Mapping(_named_image(node).entries, key, node.path))
    return entry


def _named_image(node: nodes.Mapping) -> nodes.Mapping:
    """Return the mapping with `image: tiny` written as `image: {name: tiny}`."""
    image = node.get("image")
    if not isinstance(image, nodes.Scalar) or image.null:
        return node
    key = node.entries["image"].key
    name = nodes.Mapping({"name": nodes.Entry(key, image)}, image.place, image.path)
    return node.having({**node.entries, "image": nodes.Entry(key, name)})


def chain(top: source.Source, within: str | None, found: Findings) -> list[source.Source]:
    """Return the file and the files that it is based on, the file itself first.

    `within` is the directory that all must lie in, None for anywhere.
    """
    sources = [top]
    seen = {os.path.realpath(top.name)}
    while "base" in sources[-1].root.entries:
        below = _base(sources[-1], within, seen, found)
        if below is None:
            break
        found.settle(below.problems)
        sources.append(below)
        if len(sources) > _MOST_BASES:
            place = sources[-2].root.entries["base"].key
            found.add(place.problem(f"more than {_MOST_BASES} files deep", code="base"))
            break
    return sources


def _base(
    current: source.Source, within: str | None, seen: set[str], found: Findings
) -> source.Source | None:
    key, node = current.root.entries["base"]
    if not isinstance(node, nodes.Scalar) or not node.value or node.null:
        found.add(key.problem("base must be the path of a file", code="type"))
        return None
    place = node.place
    path = place_file(node.value, place, within, found)
    if not path:
        return None
    shown = problems.quoted(node.value)
    if path in seen:
        found.add(place.problem(f"base {shown} leads back to the same file", code="base"))
        return None
    seen.add(path)
    name = os.path.normpath(os.path.join(os.path.dirname(current.name), node.value))
    try:
        return source.read(path, name=name)
    except problems.SpecError as error:
        found.settle(error.problems)
    except errors.VmctlError as error:
        found.add(place.problem(f"base {shown}: {error.message}", code="base"))
    return None


def place_file(
    written: str, place: nodes.Place, within: str | None, found: Findings, *, itself: bool = False
) -> str:
    """Return the absolute path of a file that a spec names; empty where that was refused.

    `itself` says that the spec's own directory may be meant.
    """
    try:
        return paths.located(written, beside=place.text.directory, within=within, itself=itself)
    except paths.OutsideError as outside:
        message = (
            f"{problems.quoted(written)} lies outside of the spec's directory, "
            f"at {problems.quoted(outside.found)}"
        )
        found.add(place.problem(message, suggestion="allow it with --allow-outside", code="path"))
        return ""


def check_fields(root: nodes.Mapping, found: Findings) -> None:
    """Find what is wrong with the keys that one file holds, also with those laid over later."""
    validation.check(root.without(*_FILE_KEYS), model.MachineSpec, found)
    for key in ("defaults", "vms"):
        if key not in root.entries:
            continue
        place, node = root.entries[key]
        if not isinstance(node, nodes.Mapping):
            found.add(place.problem(_not_a_mapping(key, node), code="type"))
        elif key == "defaults":
            _check_entry(node, found)
        else:
            for name, entry in node.entries.items():
                _check_name(name, entry.key, found)
                if isinstance(entry.node, nodes.Mapping):
                    _check_entry(entry.node, found)
                else:
                    found.add(entry.key.problem(_not_a_mapping(name, entry.node), code="type"))


def _not_a_mapping(key: str, node: nodes.Node) -> str:
    if isinstance(node, nodes.Scalar) and node.null:
        return f"{key} has no value"
    return f"{problems.printable(key[:64])} must be a mapping; got {scalars.shown(node.data)}"


def _check_name(name: str, place: nodes.Place, found: Findings) -> None:
    text = nodes.Scalar(name, False, place, ("name",))
    named = nodes.Mapping({"name": nodes.Entry(place, text)}, place, ())
    validation.check(named, model.MachineSpec, found)


def _check_entry(node: nodes.Mapping, found: Findings) -> None:
    if "name" in node.entries:
        message = f"a machine under 'vms' is named by its key, not by 'name' in {_at(node)}"
        found.add(node.entries["name"].key.problem(message, code="unknown-key"))
    validation.check(node.without("name"), model.MachineSpec, found)


def _at(node: nodes.Mapping) -> str:
    return problems.printable(nodes.dotted(node.path)[:100])


def check_shape(root: nodes.Mapping, found: Findings) -> bool:
    """Find keys that exclude each other at the top; True when machines can be made of the tree."""
    before = len(found)
    project = root.entries.get("project")
    if project is not None:
        _check_project(project, found)
    machines = root.get("vms")
    if machines is None:
        if "defaults" in root.entries:
            place = root.entries["defaults"].key
            message = "'defaults' stands without 'vms'"
            suggestion = "write the keys at the top of the file"
            found.add(place.problem(message, suggestion=suggestion, code="shape"))
        return len(found) == before
    if not isinstance(machines, nodes.Mapping):
        return False
    _check_machines(root, machines, found)
    return len(found) == before


def _check_machines(root: nodes.Mapping, machines: nodes.Mapping, found: Findings) -> None:
    place = root.entries["vms"].key
    if not machines.entries:
        found.add(place.problem("'vms' names no machine", code="shape"))
    if len(machines.entries) > model.MOST_MACHINES:
        message = f"'vms' names more than {model.MOST_MACHINES} machines"
        found.add(place.problem(message, code="too-many"))
    for key in root.without(*_FILE_KEYS).entries:
        if key not in model.MachineSpec.model_fields:
            continue
        message = f"key '{key}' stands beside 'vms'"
        suggestion = "the keys under 'vms' are the names" if key == "name" else ""
        suggestion = suggestion or "move it under 'defaults'"
        found.add(root.entries[key].key.problem(message, suggestion=suggestion, code="shape"))


def _check_project(entry: nodes.Entry, found: Findings) -> None:
    # The path in the tree stays `project`: that is how messages name it.
    named = nodes.Mapping({"name": entry}, entry.key, ())
    validation.check(named, model.MachineSpec, found)


def laid(sources: Sequence[nodes.Mapping]) -> nodes.Mapping:
    """Return one tree out of several, the first of which is laid over the others."""
    result = sources[-1]
    for upper in reversed(sources[:-1]):
        both = nodes.merged(result, upper, whole=model.REPLACED_WHOLE)
        assert isinstance(both, nodes.Mapping)
        result = both
    return result.without("base")


def machine_trees(root: nodes.Mapping) -> dict[str, nodes.Mapping]:
    """Return the tree of each machine under `vms` with the defaults below it."""
    machines, defaults = root.get("vms"), root.get("defaults")
    assert isinstance(machines, nodes.Mapping)
    trees = {}
    for name, (_, node) in machines.entries.items():
        if not isinstance(node, nodes.Mapping):
            continue
        both = nodes.merged(defaults, node, whole=model.REPLACED_WHOLE) if defaults else node
        assert isinstance(both, nodes.Mapping)
        trees[name] = both
    return trees
