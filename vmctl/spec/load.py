"""From a spec file to the machines that it asks for, with every problem at once."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vmctl.spec import (
    checks,
    files,
    layers,
    nodes,
    overrides,
    problems,
    scalars,
    source,
    validation,
)
from vmctl.spec.model import MachineSpec
from vmctl.spec.objection import Objection


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """A valid spec: its machines in file order, everything merged, `count` spelled out.

    `directory` is the spec's own, symbolic links followed; `text` the bytes that were read.
    Paths in the machines are absolute.
    """

    project: str
    path: pathlib.Path
    directory: pathlib.Path
    text: bytes
    machines: tuple[MachineSpec, ...]
    _trees: Mapping[str, nodes.Mapping]

    def problem(
        self,
        machine_name: str,
        loc: nodes.Path,
        message: str,
        suggestion: str = "",
        code: str = "unfit",
    ) -> problems.Problem:
        """Return a problem of one machine's key; of the nearest mapping if it is not written."""
        tree = self._trees[machine_name]
        return nodes.find(tree, loc)[1].problem(message, suggestion=suggestion, code=code)

    def as_one(self, name: str) -> Document:
        """Return the same spec of one machine, which has another name and needs no others.

        Its hostname stays.
        """
        (spec,) = self.machines
        changes = {"name": name, "hostname": spec.hostname or spec.name, "needs": ()}
        trees = {name: self._trees[spec.name]}
        return dataclasses.replace(self, machines=(spec.model_copy(update=changes),), _trees=trees)


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    """What the steps of one loading hand on."""

    top: source.Source
    within: str | None
    found: validation.Findings
    files: list[str] = dataclasses.field(default_factory=list)

    @property
    def whole(self) -> bool:
        """False when a part of the tree is missing, and rules about absence would mislead."""
        return all(problem.code != source.SHARING for problem in self.top.problems)


def load(
    path: str | os.PathLike[str], sets: Sequence[str] = (), *, allow_outside: bool = False
) -> Document:
    """Return the spec in a file, with `sets` (`key=value`) laid over it.

    Files that it names must lie in its directory unless `allow_outside`. Raises SpecError with all
    problems, NotFoundError and UsageError when the file cannot be read.
    """
    return _loaded(source.read(path), pathlib.Path(path), sets, allow_outside=allow_outside)


def parse(text: bytes, name: str, sets: Sequence[str] = ()) -> Document:
    """Return the spec that a text is, which people know by `name`; as `load` does.

    Paths in `sets` begin in the current directory.
    """
    top = source.parse(text, name, directory=os.getcwd())
    return _loaded(top, pathlib.Path(name), sets, allow_outside=False)


def _loaded(
    top: source.Source, path: pathlib.Path, sets: Sequence[str], *, allow_outside: bool
) -> Document:
    directory = top.text.directory
    reading = _Reading(top, None if allow_outside else directory, validation.Findings())
    reading.found.settle(top.problems)
    root, trees = _trees(reading, sets)
    project = _project(root, top, reading.found)
    specs = _specs(trees or {}, root, project, reading)
    # Machines that could not be read would make others look as if they needed what is not there.
    complete = reading.whole and trees is not None and len(specs) == len(trees)
    machines = _expanded(specs, trees or {}, reading.found, complete=complete)
    reading.found.raise_any()
    return Document(
        project=project,
        path=path,
        directory=pathlib.Path(os.path.realpath(directory)),
        text=top.raw,
        machines=tuple(machine for machine, _ in machines.values()),
        _trees={name: tree for name, (_, tree) in machines.items()},
    )


def _trees(
    reading: _Reading, sets: Sequence[str]
) -> tuple[nodes.Mapping, dict[str, nodes.Mapping] | None]:
    """Return the tree of the whole and those of the machines; None where they cannot be told."""
    top, found = reading.top, reading.found
    sources = layers.chain(top, reading.within, found)
    reading.files.extend(one.name for one in sources)
    roots = [layers.normal(one.root) for one in sources]
    for root in roots:
        layers.check_fields(root, found)
    root, for_all = layers.laid(roots), []
    for override in overrides.parse(sets, top.text.directory, found):
        if overrides.for_machines(override, root):
            for_all.append(override)
        else:
            root = overrides.applied(root, override, found)
    root = layers.normal(root)
    if not layers.check_shape(root, found):
        return root, None
    if "vms" not in root.entries:
        return root, {"": root}
    trees = layers.machine_trees(root)
    for override in for_all:
        trees = {name: overrides.applied(tree, override, found) for name, tree in trees.items()}
    return root, {name: layers.normal(tree) for name, tree in trees.items()}


def _project(root: nodes.Mapping, top: source.Source, found: validation.Findings) -> str:
    """Return the project's name: as written, or made from the directory's."""
    written = root.get("project")
    if written is not None:
        return written.value if isinstance(written, nodes.Scalar) else ""
    directory = os.path.basename(top.text.directory)
    made = scalars.made_label(directory)
    if not made:
        message = f"no project name can be made from the directory's, {problems.quoted(directory)}"
        suggestion = "write 'project: NAME' at the top of the file"
        found.add(root.place.problem(message, suggestion=suggestion, code="project"))
    return made


def _specs(
    trees: Mapping[str, nodes.Mapping], root: nodes.Mapping, project: str, reading: _Reading
) -> dict[str, MachineSpec]:
    """Return the machines whose own keys are all right, by their key in `trees`."""
    specs = {}
    machines = root.get("vms")
    for key, tree in trees.items():
        place = root.place
        if isinstance(machines, nodes.Mapping) and key in machines.entries:
            place = machines.entries[key].key
        named = _named(tree.without("project", "defaults", "vms", "base"), key or project, place)
        found = _files(named, reading)
        spec = validation.check(named, MachineSpec, reading.found)
        if spec is None:
            continue
        specs[key] = files.placed(spec, found)
        if reading.whole:
            objections = ((key, one) for one in checks.machine(spec))
            for problem in _problems(objections, trees):
                reading.found.add(problem)
    return specs


def _named(tree: nodes.Mapping, name: str, place: nodes.Place) -> nodes.Mapping:
    """Return a machine's tree with its name in it."""
    if "name" in tree.entries:
        return tree
    scalar = nodes.Scalar(name, False, place, ("name",))
    return tree.having({"name": nodes.Entry(place, scalar), **tree.entries})


def _files(tree: nodes.Mapping, reading: _Reading) -> dict[nodes.Path, str]:
    """Return the absolute path of every file that a machine names; those outside are problems."""
    found: dict[nodes.Path, str] = {}
    for location in files.locations(tree):
        node, place, complete = nodes.find(tree, location)
        if not complete or not isinstance(node, nodes.Scalar) or node.value.startswith("~"):
            continue
        mount = location[0] == "mounts"
        path = layers.place_file(node.value, place, reading.within, reading.found, itself=mount)
        if location[0] == "disks" and path and reading.within is None:
            # Names of devices are links on purpose; libvirt knows a disk by what it was told.
            path = os.path.normpath(os.path.join(place.text.directory, node.value))
        found[location] = path
        if mount and path and files.writable(tree, location):
            objection = files.unfit_to_write(path, reading.files)
            if objection:
                reading.found.add(place.problem(objection, code="path"))
    return found


def _expanded(
    specs: Mapping[str, MachineSpec],
    trees: Mapping[str, nodes.Mapping],
    found: validation.Findings,
    *,
    complete: bool,
) -> dict[str, tuple[MachineSpec, nodes.Mapping]]:
    """Return every machine and its tree by its final name; `count` makes several of one."""
    by_name = {spec.name: trees[key] for key, spec in specs.items()}
    clashes = list(checks.names(list(specs.values())))
    found.settle(_problems(clashes, by_name))
    if clashes:
        return {}
    groups: dict[str, list[str]] = {}
    for spec in specs.values():
        made = checks.numbered(spec)
        groups |= {name: [name] for name in made} | {spec.name: made}
    if complete:
        found.settle(_problems(checks.needs(list(specs.values()), groups), by_name))
    machines = {}
    for spec in specs.values():
        wanted = tuple(dict.fromkeys(n for group in spec.needs for n in groups.get(group, ())))
        for name in checks.numbered(spec):
            copy = spec.model_copy(update={"name": name, "needs": wanted})
            machines[name] = (copy, by_name[spec.name])
    all_trees = {name: tree for name, (_, tree) in machines.items()}
    found.settle(_problems(checks.together([one for one, _ in machines.values()]), all_trees))
    return machines


def _problems(
    objections: Iterable[tuple[str, Objection]], trees: Mapping[str, nodes.Mapping]
) -> Iterator[problems.Problem]:
    for name, (location, message, suggestion) in objections:
        place = nodes.find(trees[name], location)[1]
        yield place.problem(message, suggestion=suggestion, code="conflict")
