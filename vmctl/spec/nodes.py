"""The tree that a YAML text becomes: every key and value knows where it was written."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from collections.abc import Mapping as MappingOf
from typing import NamedTuple

from vmctl.spec import problems

Path = tuple[str | int, ...]
"""Steps from the root of a spec: keys and list indexes."""

_NULL = re.compile(r"|~|null|Null|NULL")


class Plain(str):
    """A scalar that was written without quotes; whether it is a number, the field decides."""

    __slots__ = ()


Data = str | list["Data"] | dict[str, "Data"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A text that was read: its name for people, its lines, the directory its paths begin in."""

    name: str
    lines: tuple[str, ...]
    directory: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A stretch of one line; `line` and `column` count from 1, `line` 0 is the text of a --set."""

    text: Text
    line: int
    column: int
    length: int

    def problem(self, message: str, *, suggestion: str = "", code: str) -> problems.Problem:
        """Return the problem that lies here."""
        number = max(self.line, 1) - 1
        return problems.Problem(
            file=self.text.name,
            line=self.line,
            column=self.column,
            length=self.length,
            message=message,
            suggestion=suggestion,
            source_line=self.text.lines[number] if number < len(self.text.lines) else "",
            code=code,
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """A single value; `plain` when it was written without quotes."""

    value: str
    plain: bool
    place: Place
    path: Path

    @property
    def null(self) -> bool:
        """True for what YAML 1.2 core calls null: nothing, `~`, `null`."""
        return self.plain and _NULL.fullmatch(self.value) is not None

    @property
    def data(self) -> Data:
        """The text, as pydantic gets it."""
        return Plain(self.value) if self.plain else self.value


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    place: Place
    path: Path

    @property
    def data(self) -> Data:
        """The list, as pydantic gets it."""
        return [item.data for item in self.items]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """Keys and values, in the order in which they were written."""

    entries: dict[str, Entry]
    place: Place
    path: Path

    @property
    def data(self) -> Data:
        """The mapping, as pydantic gets it."""
        return {key: entry.node.data for key, entry in self.entries.items()}

    def get(self, key: str) -> Node | None:
        """Return the value of a key, None where the key was not written."""
        entry = self.entries.get(key)
        return None if entry is None else entry.node

    def having(self, entries: MappingOf[str, Entry]) -> Mapping:
        """Return this mapping with other entries."""
        return Mapping(dict(entries), self.place, self.path)

    def without(self, *keys: str) -> Mapping:
        """Return this mapping with these keys left out."""
        return self.having({key: entry for key, entry in self.entries.items() if key not in keys})


Node = Scalar | Sequence | Mapping


class Entry(NamedTuple):
    """One key of a mapping: where the key stands, and its value."""

    key: Place
    node: Node


def dotted(path: Path) -> str:
    """Return a path as people write it after --set: `vms.web.disks.0`."""
    return ".".join(str(step) for step in path)


def find(root: Node, path: Path) -> tuple[Node, Place, bool]:
    """Return the deepest node on the way of `path`, its place, and whether it is the end of it.

    The place of a mapping or list that has a key is that of the key.
    """
    node, place = root, root.place
    for step in path:
        if isinstance(node, Mapping) and isinstance(step, str) and step in node.entries:
            place, node = _shown(node.entries[step]), node.entries[step].node
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            place = node.place
        else:
            return node, place, False
    return node, place, True


def _shown(entry: Entry) -> Place:
    """Return what to underline for a value: itself, or its key where it fills no single line."""
    node = entry.node
    return node.place if isinstance(node, Scalar) and node.place.length else entry.key


def nulls(root: Node) -> Iterator[tuple[Place, Scalar]]:
    """Yield every scalar that has no value, with the place to show for it."""
    waiting: list[tuple[Place, Node]] = [(root.place, root)]
    while waiting:
        place, node = waiting.pop()
        if isinstance(node, Mapping):
            waiting.extend((_shown(entry), entry.node) for entry in node.entries.values())
        elif isinstance(node, Sequence):
            waiting.extend((item.place, item) for item in node.items)
        elif node.null:
            yield place, node


def merged(lower: Node, upper: Node, *, whole: frozenset[str] = frozenset()) -> Node:
    """Return `upper` laid over `lower`: mappings key by key, everything else replaced.

    The keys named in `whole` are replaced as a whole, too.
    """
    if not isinstance(lower, Mapping) or not isinstance(upper, Mapping):
        return upper
    entries = dict(lower.entries)
    for key, entry in upper.entries.items():
        below = entries.get(key)
        if below is None or key in whole:
            entries[key] = entry
        else:
            entries[key] = Entry(entry.key, merged(below.node, entry.node, whole=whole))
    return upper.having(entries)
