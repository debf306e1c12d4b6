"""What the store knows of backups: one directory for each, with a manifest that says what it holds.

A full backup stands alone; an incremental one holds what changed since its parent, which lies
beside it and is named in the headers of its images by a relative path.
"""

from __future__ import annotations

import calendar
import dataclasses
import enum
import os
import pathlib
import re
import shutil
import stat
import time
from collections.abc import Iterator
from typing import Any

from vmctl import errors
from vmctl.store import files
from vmctl.store.layout import Layout

NAME = re.compile(r"[0-9]{8}-[0-9]{6}(-[0-9]{1,3})?")
"""The grammar of a backup's name: the moment that it is of (UTC)."""

_STEM = "%Y%m%d-%H%M%S"
_MOST = 999

LATEST = "latest"
FORMAT = 1
"""Version of the manifest."""

LONGEST = 16
"""Backups in a chain, the full one included: the next one is a full one."""

_DRAFT = re.compile(rf"\.tmp-{NAME.pattern}-[0-9a-f]{{8}}")
"""What `files.temporary` makes of a backup's name."""

_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,200}")
_MANIFEST = "backup.json"
_NVRAM = "nvram.fd"
_LIFTED = "lifted-"
_IMAGE = ".qcow2"


class Kind(enum.StrEnum):
    """Whether a backup stands alone."""

    FULL = "full"
    INCREMENTAL = "incremental"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One disk in a backup: `size` is what the guest sees, `bytes` what the file takes.

    `digest` is the sha256 (hex) of the file.
    """

    name: str
    file: str
    size: int
    bytes: int
    digest: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup as its manifest has it.

    `uuid` is the domain's; `created` in seconds since the epoch. `running` says that the guest ran,
    `quiesced` that its file systems were frozen by its agent. `checkpoint` is libvirt's name of
    the point since which changes are recorded, empty for a machine that was stopped. `nvram` is the
    digest of the UEFI variables. `xml`, `record` and `kept` say what the machine was.
    """

    name: str
    machine: str
    uuid: str
    kind: Kind
    parent: str = ""
    created: float = 0.0
    running: bool = False
    quiesced: bool = False
    checkpoint: str = ""
    comment: str = ""
    disks: tuple[Copy, ...] = ()
    nvram: str = ""
    xml: str = ""
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    kept: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What its images take."""
        return sum(copy.bytes for copy in self.disks)


@dataclasses.dataclass(frozen=True, slots=True)
class Shelf:
    """Where the backups of one machine lie."""

    directory: pathlib.Path

    @property
    def machine(self) -> str:
        """The machine's name."""
        return self.directory.name

    def place(self, name: str) -> Place:
        """The files of one backup."""
        return Place(self.directory / name)

    @property
    def names(self) -> list[str]:
        """The names of all backups, the oldest first; whether they can be read or not."""
        try:
            found = os.listdir(self.directory)
        except OSError:
            return []
        return sorted(name for name in found if NAME.fullmatch(name))


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """The files of one backup."""

    directory: pathlib.Path

    @property
    def manifest(self) -> pathlib.Path:
        """Says what there is, and when the backup was made; it is written last."""
        return self.directory / _MANIFEST

    @property
    def nvram(self) -> pathlib.Path:
        """UEFI variables."""
        return self.directory / _NVRAM

    @property
    def lifted(self) -> pathlib.Path:
        """What the manifest will say; there only while a backup gets other images."""
        return self.directory / f"{_LIFTED}{_MANIFEST}"

    def beside(self, file: str) -> pathlib.Path:
        """The image that will take the place of one."""
        return self.directory / f"{_LIFTED}{file}"

    def file(self, name: str) -> pathlib.Path:
        """One of its images, by its own name."""
        return self.directory / name


def home(layout: Layout, to: pathlib.Path | None) -> pathlib.Path:
    """Return the directory with one directory for each machine: of the store, or a person's own."""
    return layout.backups if to is None else to


def shelf(layout: Layout, to: pathlib.Path | None, machine: str) -> Shelf:
    """Return where a machine's backups lie."""
    return Shelf(home(layout, to) / machine)


def machines(layout: Layout, to: pathlib.Path | None) -> list[str]:
    """Return the machines that there are backups of, whether they exist or not."""
    try:
        found = sorted(os.listdir(home(layout, to)))
    except OSError:
        return []
    return [name for name in found if shelf(layout, to, name).names]


def new_name(shelf: Shelf, now: float) -> str:
    """Return an unused name for a backup of this moment, which comes after all others."""
    stem = _stem(now)
    there = shelf.names
    newest = there[-1] if there else ""
    if stem > newest and not newest.startswith(stem):
        return stem
    # Within the same second, or after the clock was set back.
    stem, number = newest[:15], int(newest[16:] or 1)
    if number == _MOST:
        return _stem(calendar.timegm(time.strptime(stem, _STEM)) + 1)
    return f"{stem}-{number + 1:03d}"


def _stem(moment: float) -> str:
    return time.strftime(_STEM, time.gmtime(moment))


def read(shelf: Shelf, name: str) -> Backup:
    """Return a backup. Raises NotFoundError, RefusedError for a manifest that cannot be read."""
    place = shelf.place(name)
    if not NAME.fullmatch(name) or not place.directory.is_dir():
        there = ", ".join(shelf.names) or "none"
        raise errors.NotFoundError(
            f"There is no backup '{name}' of machine '{shelf.machine}' in '{shelf.directory}'; "
            f"there are: {there}.",
            hint=f"See them: vmctl backup list {shelf.machine}",
        )
    try:
        return _parsed(shelf, name, files.read_json(place.manifest) or {})
    except (TypeError, ValueError, KeyError, AttributeError):
        raise errors.RefusedError(
            f"The file '{place.manifest}' is damaged: it says what backup '{name}' holds.",
            hint="Use another backup: vmctl backup list",
        ) from None


def resolved(shelf: Shelf, name: str) -> str:
    """Return the name that a word means: `latest` is the newest."""
    return shelf.names[-1] if name == LATEST and shelf.names else name


def readable(shelf: Shelf) -> list[Backup]:
    """Return the backups whose manifests can be read, the oldest first."""
    return [found for found in map(_Reader(shelf), shelf.names) if found is not None]


@dataclasses.dataclass(frozen=True, slots=True)
class _Reader:
    shelf: Shelf

    def __call__(self, name: str) -> Backup | None:
        try:
            return read(self.shelf, name)
        except errors.VmctlError:
            return None


def chain(shelf: Shelf, name: str) -> list[Backup]:
    """Return a backup and all that it needs, from itself down to the full one.

    Raises NotFoundError, RefusedError where one is missing.
    """
    found = [read(shelf, name)]
    while found[-1].parent:
        top = found[-1]
        # Names grow with time, so that nothing can be its own parent.
        if top.parent not in shelf.names or top.parent >= top.name:
            raise errors.RefusedError(
                f"Backup '{top.name}' of machine '{shelf.machine}' needs '{top.parent}', which is "
                f"not in '{shelf.directory}'.",
                hint="Use a backup that needs none that is lost: vmctl backup list "
                f"{shelf.machine}",
            )
        found.append(read(shelf, top.parent))
    return found


def children(shelf: Shelf, name: str) -> list[Backup]:
    """Return the backups that need a backup directly."""
    return [each for each in readable(shelf) if each.parent == name]


def below(shelf: Shelf, parent: str, disk: str) -> str:
    """Return how a copy names the parent's copy of its disk: directories lie side by side.

    Raises RefusedError where the parent has none; nothing for no parent.
    """
    if not parent:
        return ""
    found = next((copy.file for copy in read(shelf, parent).disks if copy.name == disk), None)
    if found is None:
        raise errors.RefusedError(
            f"Backup '{parent}' of machine '{shelf.machine}' holds no disk '{disk}'.",
            hint=f"Use another backup: vmctl backup list {shelf.machine}",
        )
    return f"../{parent}/{found}"


def write(place: Place, backup: Backup) -> None:
    """Put a backup's manifest into its place, whole."""
    files.write_json(place.manifest, {"format": FORMAT, **dataclasses.asdict(backup)})


def clear(shelf: Shelf) -> None:
    """Put right what killed commands left; the caller holds the lock of the machine's backups.

    In a person's own directory other things may lie beside the backups: what is not certainly one
    of ours stays.
    """
    for draft in files.temporaries(shelf.directory):
        if _DRAFT.fullmatch(draft.name) and _own_directory(draft):
            shutil.rmtree(draft, ignore_errors=True)
    for name in shelf.names:
        place = shelf.place(name)
        if not place.manifest.is_file():
            continue
        if place.lifted.exists():
            finish_lift(place)
        files.clear_temporaries(place.directory)
        for entry in sorted(place.directory.glob(f"{_LIFTED}*")):
            files.remove(entry)


def _own_directory(path: pathlib.Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def lift(place: Place, backup: Backup) -> None:
    """Give a backup other images: those that lie beside the old ones, at `Place.beside`.

    Once what it will be is written down, a kill leaves something that `clear` finishes. The names
    of the images stay: those that need them name them in their headers.
    """
    files.sync_directory(place.directory)
    files.write_json(place.lifted, {"format": FORMAT, **dataclasses.asdict(backup)})
    finish_lift(place)


def finish_lift(place: Place) -> None:
    """Put new images in the places of old ones, and then what is said of them."""
    for entry in sorted(place.directory.glob(f"{_LIFTED}*{_IMAGE}")):
        entry.rename(place.file(entry.name.removeprefix(_LIFTED)))
    files.publish(place.lifted, place.manifest)


def remove(shelf: Shelf, name: str) -> None:
    """Remove a backup: at once to whoever looks, whatever happens meanwhile."""
    place = shelf.place(name)
    draft = files.temporary(place.directory)
    place.directory.rename(draft)
    files.sync_directory(shelf.directory)
    shutil.rmtree(draft, ignore_errors=True)


def _parsed(shelf: Shelf, name: str, data: dict[str, Any]) -> Backup:
    """Return what a manifest says; raises ValueError and its like for what it cannot say."""
    known = {key: value for key, value in data.items() if key in _FIELDS}
    copies = tuple(_copy(item) for item in known["disks"])
    backup = Backup(**{**known, "kind": Kind(known["kind"]), "disks": copies})
    whole = (backup.kind is Kind.FULL) == (not backup.parent)
    texts = (backup.machine, backup.uuid, backup.checkpoint, backup.comment, backup.xml)
    if (
        data["format"] != FORMAT
        or backup.name != name
        or not whole
        or (backup.parent and not NAME.fullmatch(backup.parent))
        or not all(isinstance(text, str) for text in texts)
        or not isinstance(backup.record, dict)
        or not isinstance(backup.kept, dict)
        or not copies
        or not shelf.machine
    ):
        raise ValueError
    return dataclasses.replace(backup, created=float(backup.created))


def _copy(item: dict[str, Any]) -> Copy:
    copy = Copy(**item)
    if not (_FILE.fullmatch(copy.file) and _FILE.fullmatch(copy.name)):
        raise ValueError
    return dataclasses.replace(copy, size=int(copy.size), bytes=int(copy.bytes))


_FIELDS = frozenset(field.name for field in dataclasses.fields(Backup))


def ordered(backups: list[Backup]) -> Iterator[tuple[int, Backup]]:
    """Yield depth and backup, parents before their children, siblings by age."""
    names = {backup.name for backup in backups}

    def below(parent: str, depth: int) -> Iterator[tuple[int, Backup]]:
        for each in backups:
            root = each.parent not in names
            if (each.parent == parent and parent) or (not parent and root):
                yield depth, each
                yield from below(each.name, depth + 1)

    yield from below("", 0)
