"""The one door to YAML: any byte string becomes a tree with positions, or problems, at once.

Scalars are never interpreted here: `22:22`, `no`, `0600` and `12.10` stay as they were written, and
the field decides what they are. Anchors, aliases, merge keys and tags are refused; size, depth and
the number of values are bounded; events are read one by one, so that no nesting exhausts a stack.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat

import yaml

from vmctl import errors
from vmctl.spec import nodes, problems, syntax

MOST_BYTES = 1 << 20
MOST_BYTES_PURE = 1 << 16
"""Limit where libyaml is missing: PyYAML's own parser needs seconds for a megabyte."""
DEEPEST = 64
MOST_VALUES = 20_000
SHARING = "anchor"
"""Code of problems after which a part of the tree is missing."""

_LINE_BREAK = re.compile("\r\n|\r|\n")
_UNREADABLE = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_REFUSED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)
"""What no value may contain: control characters, lone surrogates, reordering of text."""

_FAST: type | None = getattr(yaml, "CSafeLoader", None)


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A text that could be read; `problems` are those that did not hinder reading it."""

    text: nodes.Text
    raw: bytes
    root: nodes.Mapping
    problems: tuple[problems.Problem, ...]

    @property
    def name(self) -> str:
        """What people call the file."""
        return self.text.name


def read(path: str | os.PathLike[str], *, name: str = "") -> Source:
    """Read a file; `name` is what people call it, default: the path.

    Raises NotFoundError, UsageError (not a file, not readable) and SpecError.
    """
    called = name or os.fspath(path)
    shown = problems.quoted(called)
    try:
        raw = _content(path)
    except FileNotFoundError:
        raise errors.NotFoundError(
            f"There is no file {shown}.", hint="To write a starter spec: vmctl init"
        ) from None
    except IsADirectoryError:
        raise errors.UsageError(
            f"{shown} is a directory; a spec is a file.", hint="Name the file in it."
        ) from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise errors.UsageError(f"The file {shown} cannot be read: {reason}.") from problem
    directory = os.path.dirname(os.path.abspath(path))
    return parse(raw, called, directory=directory)


def _content(path: str | os.PathLike[str]) -> bytes:
    """Return at most one byte more than is allowed; never waits for a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError
        if not stat.S_ISREG(kind):
            raise ValueError("it is a pipe or a device, not a file")
        return file.read(MOST_BYTES + 1)


def parse(raw: bytes, name: str, *, directory: str = "") -> Source:
    """Return the tree of a YAML text.

    `directory` is where relative paths in it begin. Raises SpecError when it cannot be read.
    """
    content = _decoded(raw, name)
    lines = tuple(_LINE_BREAK.split(content))
    text = nodes.Text(name, lines, directory)
    _refuse_control_characters(text)
    builder = _Builder(text)
    try:
        for event in yaml.parse(content, Loader=_FAST or yaml.SafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as complaint:
        raise builder.failed(_syntax_problem(complaint, text)) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        where = nodes.Place(text, 1, 1, 0)
        raise builder.failed(where.problem("this is not valid YAML", code="syntax")) from None
    return Source(text, raw, builder.root(), tuple(builder.problems))


def value(argument: str, text: nodes.Text, offset: int, path: nodes.Path) -> nodes.Node:
    """Return the value of a `--set`: as written, or a list, mapping or quoted text in YAML.

    `text` holds the whole argument, in which the value begins at `offset`. Raises SpecError.
    """
    place = nodes.Place(text, 0, offset + 1, max(1, len(argument)))
    refused = _REFUSED.search(argument) or "\n" in argument
    if refused:
        raise problems.SpecError(
            [place.problem("the value contains a control character", code="control-character")]
        )
    if not argument.startswith(("[", "{", '"', "'")):
        return nodes.Scalar(argument, True, place, path)
    try:
        source = parse(b"value: " + argument.encode(), text.name)
    except problems.SpecError as error:
        found = [place.problem(one.message, code=one.code) for one in error.problems]
        raise problems.SpecError(found) from None
    if source.problems:
        found = [place.problem(one.message, code=one.code) for one in source.problems]
        raise problems.SpecError(found)
    return _moved(source.root.entries["value"].node, place, path)


def _moved(node: nodes.Node, place: nodes.Place, path: nodes.Path) -> nodes.Node:
    """Return the tree as if all of it had been written at `place`."""
    if isinstance(node, nodes.Scalar):
        return nodes.Scalar(node.value, node.plain, place, path)
    if isinstance(node, nodes.Sequence):
        items = (_moved(item, place, (*path, n)) for n, item in enumerate(node.items))
        return nodes.Sequence(tuple(items), place, path)
    entries = {
        key: nodes.Entry(place, _moved(entry.node, place, (*path, key)))
        for key, entry in node.entries.items()
    }
    return nodes.Mapping(entries, place, path)


def _decoded(raw: bytes, name: str) -> str:
    most = MOST_BYTES if _FAST else MOST_BYTES_PURE
    nowhere = nodes.Place(nodes.Text(name, ()), 1, 1, 0)
    if len(raw) > most:
        message = f"the file is larger than {most // 1024} KiB"
        raise problems.SpecError([nowhere.problem(message, code="too-big")])
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        message = "the file is UTF-16"
        found = nowhere.problem(message, suggestion="save it as UTF-8", code="encoding")
        raise problems.SpecError([found])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", errors="replace")
        broken = raw.decode("utf-8-sig", errors="replace")
        text = nodes.Text(name, tuple(_LINE_BREAK.split(broken)))
        place = _place_at(text, before)
        found = place.problem(
            f"byte 0x{raw[error.start]:02x} is not UTF-8",
            suggestion="save the file as UTF-8",
            code="encoding",
        )
        raise problems.SpecError([found]) from None


def _place_at(text: nodes.Text, before: str) -> nodes.Place:
    """Return the place of the character that follows `before`."""
    above = _LINE_BREAK.split(before)
    return nodes.Place(text, len(above), len(above[-1]) + 1, 1)


def _refuse_control_characters(text: nodes.Text) -> None:
    found: list[problems.Problem] = []
    for number, line in enumerate(text.lines, 1):
        for match in _UNREADABLE.finditer(line):
            place = nodes.Place(text, number, match.start() + 1, 1)
            message = f"control character U+{ord(match.group()):04X}"
            found.append(place.problem(message, code="control-character"))
            if len(found) >= problems.MOST_SHOWN:
                raise problems.SpecError(found)
    if found:
        raise problems.SpecError(found)


def _syntax_problem(complaint: yaml.MarkedYAMLError, text: nodes.Text) -> problems.Problem:
    mark, opened = complaint.problem_mark or complaint.context_mark, complaint.context_mark
    if opened and re.search("unexpected (end of stream|document)", complaint.problem or ""):
        mark = opened
    number = min(mark.line if mark else 0, len(text.lines) - 1)
    line = text.lines[number]
    column = min(mark.column if mark else 0, len(line))
    message, suggestion = syntax.explain(
        complaint.problem or "", complaint.context or "", line[column : column + 1]
    )
    place = nodes.Place(text, number + 1, column + 1, 1)
    if opened and "closing" in message:
        message += f"; it was opened on line {opened.line + 1}, column {opened.column + 1}"
    return place.problem(message, suggestion=suggestion, code="syntax")


@dataclasses.dataclass(slots=True)
class _Frame:
    """A collection whose end has not been seen."""

    mapping: bool
    place: nodes.Place
    path: nodes.Path
    is_key: bool = False
    items: list[nodes.Node] = dataclasses.field(default_factory=list)
    entries: dict[str, nodes.Entry] = dataclasses.field(default_factory=dict)
    key: tuple[str, nodes.Place] | None = None
    dropped: bool = False
    """True when the value that follows belongs to a key that was refused."""

    @property
    def wants_key(self) -> bool:
        return self.mapping and self.key is None and not self.dropped

    @property
    def child_path(self) -> nodes.Path:
        if self.mapping:
            return (*self.path, self.key[0] if self.key else "")
        return (*self.path, len(self.items))

    def finished(self) -> nodes.Node:
        if self.mapping:
            return nodes.Mapping(self.entries, self.place, self.path)
        return nodes.Sequence(tuple(self.items), self.place, self.path)


class _Builder:
    """Makes the tree out of the parser's events, one by one."""

    def __init__(self, text: nodes.Text) -> None:
        self.problems: list[problems.Problem] = []
        self._text = text
        self._frames: list[_Frame] = []
        self._tree: nodes.Node | None = None
        self._values = 0
        self._documents = 0
        self._shares = False

    def failed(self, last: problems.Problem) -> problems.SpecError:
        """Return the error for a text whose reading ends with `last`."""
        return problems.SpecError([*self.problems, last])

    def root(self) -> nodes.Mapping:
        """Return the tree. Raises SpecError where there is none, or it is no mapping."""
        start = nodes.Place(self._text, 1, 1, 0)
        if self._tree is None or (isinstance(self._tree, nodes.Scalar) and self._tree.null):
            suggestion = "to write a starter spec: vmctl init FILE"
            found = start.problem("the file is empty", suggestion=suggestion, code="empty")
            raise self.failed(found)
        if not isinstance(self._tree, nodes.Mapping):
            what = "a list" if isinstance(self._tree, nodes.Sequence) else "a single value"
            found = self._tree.place.problem(
                f"the file must hold keys and values, such as 'name: web'; it holds {what}",
                code="type",
            )
            raise self.failed(found)
        # Problems of the file as a whole show no excerpt: no one line of it is to blame.
        return nodes.Mapping(self._tree.entries, start, ())

    def take(self, event: yaml.Event) -> None:
        """Use one event. Raises SpecError when it goes beyond a limit."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.ScalarEvent):
            self._count(event)
            self._refuse_extras(event)
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._count(event)
            self._refuse_sharing(event)
            self._drop()
        elif isinstance(event, yaml.CollectionStartEvent):
            self._count(event)
            self._refuse_extras(event)
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            frame = self._frames.pop()
            self._trim(frame, event)
            if frame.is_key:
                self._frames[-1].dropped = True
            else:
                self._put(frame.finished())

    def _begin(self, event: yaml.DocumentStartEvent) -> None:
        self._documents += 1
        if self._documents > 1:
            message = "a second document begins here; a spec is one document"
            raise self.failed(self._place(event).problem(message, code="documents"))
        if event.tags:
            self._note(self._place(event), "tags and directives are not supported", "tag")

    def _count(self, event: yaml.Event) -> None:
        self._values += 1
        if self._values > MOST_VALUES:
            message = f"the file holds more than {MOST_VALUES} values"
            raise self.failed(self._place(event).problem(message, code="too-big"))

    def _refuse_extras(self, event: yaml.NodeEvent) -> None:
        if event.anchor is not None:
            self._refuse_sharing(event)
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._note(self._place(event), "tags are not supported", "tag")

    def _refuse_sharing(self, event: yaml.NodeEvent) -> None:
        """Complain of the first anchor or alias; the others are part of the same idea."""
        if not self._shares:
            suggestion = "write what machines share under 'defaults'"
            message = "anchors and aliases are not supported"
            self._note(self._place(event), message, SHARING, suggestion)
        self._shares = True

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        place = self._place(event)
        if len(self._frames) >= DEEPEST:
            message = f"nested more than {DEEPEST} levels deep"
            raise self.failed(place.problem(message, code="too-deep"))
        is_key = bool(self._frames) and self._frames[-1].wants_key
        if is_key:
            self._note(place, "a key must be a single word", "key")
        mapping = isinstance(event, yaml.MappingStartEvent)
        self._frames.append(_Frame(mapping, place, self._path(), is_key))

    def _trim(self, frame: _Frame, event: yaml.CollectionEndEvent) -> None:
        """Let the place of a collection in brackets end where its bracket closes."""
        end = event.end_mark
        assert end is not None
        place = frame.place
        if end.line == place.line - 1 and end.column >= place.column:
            length = end.column + 1 - place.column
            frame.place = nodes.Place(place.text, place.line, place.column, length)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        place, text = self._place(event), event.value
        if _REFUSED.search(text):
            self._note(place, "the value contains a control character", "control-character")
            text = problems.printable(text)
        if self._frames and self._frames[-1].wants_key:
            self._key(text, place, plain=event.implicit[0])
        else:
            self._put(nodes.Scalar(text, event.implicit[0], place, self._path()))

    def _key(self, key: str, place: nodes.Place, *, plain: bool) -> None:
        frame = self._frames[-1]
        earlier = frame.entries.get(key)
        if plain and key == "<<":
            suggestion = "write what machines share under 'defaults'"
            self._note(place, "merge keys are not supported", SHARING, suggestion)
            frame.dropped = True
        elif earlier is not None:
            first = f"first on line {earlier.key.line}, column {earlier.key.column}"
            message = f"key {problems.quoted(key)} is written twice; {first}"
            self._note(place, message, "duplicate-key")
            frame.dropped = True
        else:
            frame.key = (key, place)

    def _drop(self) -> None:
        """Leave out the value of an alias, or what an alias is the key of."""
        if self._frames and self._frames[-1].mapping:
            frame = self._frames[-1]
            frame.dropped, frame.key = frame.wants_key, None

    def _put(self, node: nodes.Node) -> None:
        """Add a finished value to where it belongs."""
        if not self._frames:
            self._tree = node
            return
        frame = self._frames[-1]
        if not frame.mapping:
            frame.items.append(node)
        elif frame.dropped:
            frame.dropped = False
        elif frame.key is not None:
            key, place = frame.key
            frame.entries[key] = nodes.Entry(place, node)
            frame.key = None

    def _path(self) -> nodes.Path:
        return self._frames[-1].child_path if self._frames else ()

    def _place(self, event: yaml.Event) -> nodes.Place:
        start, end = event.start_mark, event.end_mark
        assert start is not None
        assert end is not None
        number = min(start.line, len(self._text.lines) - 1)
        line = self._text.lines[number]
        stop = end.column if end.line == start.line else len(line.rstrip())
        collection = isinstance(event, yaml.CollectionStartEvent)
        if collection:
            stop = len(line.rstrip())
        length = max(0, stop - start.column)
        return nodes.Place(self._text, number + 1, start.column + 1, length)

    def _note(self, place: nodes.Place, message: str, code: str, suggestion: str = "") -> None:
        self.problems.append(place.problem(message, suggestion=suggestion, code=code))
