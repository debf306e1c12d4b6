"""What is put into the lab host besides packages: vmctl, the libraries it uses, a guest's image."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import pathlib
import py_compile
import re
import sys
from collections.abc import Iterator

from vmctl import errors
from vmctl.images import catalog, recipes
from vmctl.machine.model import Image
from vmctl.store.layout import Layout

LIBRARY = "opt/vmctl"
"""Where vmctl and its libraries lie in the guest."""

STORE = "var/lib/vmctl"
"""Root's store in the guest."""

PYTHON = (3, 11)
"""The Python of the system; compiled libraries fit no other."""

_COMMAND = f"""\
#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/{LIBRARY}")
from vmctl.cli import main

sys.exit(main())
"""
_FROM_PACKAGES = {"libvirt-python"}
"""What the system has as a package: it goes with the system's own libvirt."""

_SOURCE = ".py"
_STORE_MODE = 0o711
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One file: its content, or where that lies."""

    content: bytes | pathlib.Path
    mode: int = 0o644


@dataclasses.dataclass(frozen=True)
class Payload:
    """Files by their paths in the guest, without the first slash.

    `moment` is the time (seconds since 1970) that all of them are given.
    """

    entries: dict[str, Entry]
    moment: int

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 (hex) of all paths, modes and contents."""
        digest = hashlib.sha256()
        for path, entry in sorted(self.entries.items()):
            content = entry.content
            if isinstance(content, pathlib.Path):
                with content.open("rb") as stream:
                    inner = hashlib.file_digest(stream, "sha256").hexdigest()
            else:
                inner = hashlib.sha256(content).hexdigest()
            digest.update(f"{path}\n{entry.mode:o} {inner}\n".encode())
        return digest.hexdigest()

    def commands(self, spool: pathlib.Path) -> Iterator[str]:
        """Yield what makes debugfs write the files; contents that lie nowhere go into `spool`.

        Modules of Python are compiled: a guest under emulation takes long for it.
        """
        yield from self._directories()
        for number, (path, entry) in enumerate(sorted(self.entries.items())):
            source = _placed(entry, spool / str(number))
            yield from _written(path, source, entry.mode)
            if path.endswith(_SOURCE):
                place = spool / f"{number}.pyc"
                _compile(source, place, path)
                yield from _written(_cached(path), place, 0o644)

    def _directories(self) -> Iterator[str]:
        paths = [*self.entries, *(_cached(path) for path in self.entries if path.endswith(_SOURCE))]
        parents = {str(parent) for path in paths for parent in pathlib.PurePath(path).parents}
        for path in sorted(parents - {"."} - _THERE):
            yield f'mkdir "/{path}"'
        for path in (STORE, f"{STORE}/images", f"{STORE}/image-names"):
            yield f'sif "/{path}" mode 0{0o040000 | _STORE_MODE:o}'


_THERE = {"opt", "usr", "usr/local", "usr/local/bin", "var", "var/lib"}
"""Directories that the system has."""


def collect(layout: Layout, guest: Image) -> Payload:
    """Gather what is put in. Raises HostError where the Python that runs is another one."""
    if sys.version_info[:2] != PYTHON:
        wanted = ".".join(str(number) for number in PYTHON)
        raise errors.HostError(
            f"The lab host's Python is {wanted}, and vmctl runs under "
            f"{sys.version_info[0]}.{sys.version_info[1]}: its libraries would not fit.",
            hint=f"Run vmctl under Python {wanted}, which is Debian 12's own.",
        )
    entries = {f"{LIBRARY}/vmctl/{path}": Entry(content) for path, content in recipes.own_sources()}
    for name in _distributions():
        entries |= _files(name)
    entries["usr/local/bin/vmctl"] = Entry(_COMMAND.encode(), 0o755)
    moment = int((layout.image(guest.digest) / catalog.FACTS).stat().st_mtime)
    return Payload({**entries, **_image(layout, guest)}, moment)


def _distributions() -> list[str]:
    """Return the names of the libraries that vmctl uses, and of those that they use in turn."""
    found: set[str] = set()
    waiting = ["vmctl"]
    while waiting:
        for requirement in importlib.metadata.requires(waiting.pop()) or ():
            match = _NAME.match(requirement)
            if match is None or "extra ==" in requirement:
                continue
            name = match[0].lower().replace("_", "-")
            if name in found or name in _FROM_PACKAGES or not _installed(name):
                continue
            found.add(name)
            waiting.append(name)
    return sorted(found)


def _installed(name: str) -> bool:
    """Tell whether a library is there: some are for other systems or other Pythons alone."""
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _files(name: str) -> dict[str, Entry]:
    """Return a library's files as they are installed here, programs and compiled modules aside."""
    found = {}
    for file in importlib.metadata.files(name) or ():
        if ".." in file.parts or "__pycache__" in file.parts or file.is_absolute():
            continue
        if file.name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
            continue
        content = pathlib.Path(str(file.locate())).read_bytes()
        found[f"{LIBRARY}/{file.as_posix()}"] = Entry(content)
    return found


def _image(layout: Layout, guest: Image) -> dict[str, Entry]:
    """Return the files by which the guest's image is in the store of the lab host."""
    directory = layout.image(guest.digest)
    found = {
        f"{STORE}/images/{guest.digest}/{path.name}": Entry(path)
        for path in sorted(directory.iterdir())
    }
    record = json.dumps(catalog.record(layout, guest.name), sort_keys=True)
    found[f"{STORE}/image-names/{guest.name}.json"] = Entry(record.encode())
    return found


def _placed(entry: Entry, place: pathlib.Path) -> pathlib.Path:
    if isinstance(entry.content, pathlib.Path):
        return entry.content
    place.write_bytes(entry.content)
    return place


def _written(path: str, source: pathlib.Path, mode: int) -> Iterator[str]:
    # debugfs gives a file the owner and the mode of its source.
    yield f'write "{source}" "/{path}"'
    yield f'sif "/{path}" mode 0{0o100000 | mode:o}'
    yield f'sif "/{path}" uid 0'
    yield f'sif "/{path}" gid 0'


def _cached(path: str) -> str:
    """Return where Python looks for a compiled module."""
    place = pathlib.PurePath(path)
    tag = f"cpython-{PYTHON[0]}{PYTHON[1]}"
    return str(place.parent / "__pycache__" / f"{place.stem}.{tag}.pyc")


def _compile(source: pathlib.Path, target: pathlib.Path, path: str) -> None:
    """Compile a module in a form that is taken as it is, whatever the time of its source."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(
        str(source), str(target), dfile=f"/{path}", doraise=True, invalidation_mode=mode
    )
