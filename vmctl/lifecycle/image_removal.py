"""Removes images: those that are named, and by `prune` what nobody names and nobody uses.

An `up` may be about to use an image that nobody uses yet. It writes its intent, with the digest,
and then looks whether the image is there; a removal takes the image's directory away, and then
looks for intents. Whichever comes second sees the other: the image is put back, or `up` is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import pathlib
import shutil
from collections.abc import Iterator, Sequence

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.hypervisor.connection import Connection
from vmctl.images import cache, catalog, drafts, inventory, local
from vmctl.lifecycle import image_users
from vmctl.store import files, locks
from vmctl.store.layout import Layout

_LOCK_SECONDS = 10.0
_AWAY = "removed-"


class What(enum.StrEnum):
    """What can be cleared."""

    IMAGE = "image that nobody names"
    COPY = "copy of a file that changed or is gone"
    DRAFT = "what a killed command left"
    CACHE = "downloads"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """An image that is to be removed: all its names, and what that frees (bytes).

    `keeps` says that other names stand for it too: then only the one name goes.
    """

    word: str
    digest: str
    records: tuple[pathlib.Path, ...]
    size: int
    keeps: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Clearance:
    """Something that `prune` clears; `size` in bytes."""

    what: What
    name: str
    path: str
    size: int


def chosen(layout: Layout, words: Sequence[str]) -> list[Removal]:
    """Return what the words mean: names of images, or the first digits of digests.

    Raises NotFoundError, and UsageError for digits that mean several.
    """
    return [_meant(layout, word) for word in dict.fromkeys(words)]


def _meant(layout: Layout, word: str) -> Removal:
    names = inventory.named(layout)
    digest = str(catalog.record(layout, word).get("digest", ""))
    if digest:
        records: tuple[pathlib.Path, ...] = (layout.image_names / f"{word}.json",)
        keeps = tuple(name for name in names.get(digest, ()) if name != word)
        size = 0 if keeps else inventory.space(layout.image(digest))
        return Removal(word=word, digest=digest, records=records, size=size, keeps=keeps)
    found = inventory.matching(layout, word)
    if not found:
        found = [digest for digest, said in names.items() if word in said]
    if len(found) > 1:
        raise errors.UsageError(
            f"'{word}' means several images: {', '.join(each[:16] for each in found)}.",
            hint="Write more digits.",
        )
    if not found:
        _refuse_absent(layout, word)
    (digest,) = found
    records = tuple(
        path
        for path in sorted(layout.image_names.glob("*.json"))
        if (files.read_json(path) or {}).get("digest") == digest
    )
    size = inventory.space(layout.image(digest))
    return Removal(word=word, digest=digest, records=records, size=size)


def _refuse_absent(layout: Layout, word: str) -> None:
    """Raise NotFoundError: for a word that is nothing, or for an image that was never built."""
    catalog.find(layout, word)
    raise errors.NotFoundError(
        f"The image '{word}' is not in the store; there is nothing to remove.",
        hint="See what is there: vmctl image list",
    )


def refuse_used(layout: Layout, connection: Connection, removals: Sequence[Removal]) -> None:
    """Raise ConflictError where a machine uses one of the images."""
    users = image_users.find(layout, connection)
    for removal in removals:
        if not removal.keeps:
            _refuse_used(users, removal.word, removal.digest)


def _refuse_used(users: image_users.Users, word: str, digest: str) -> None:
    machines = users.of(digest)
    if machines:
        raise errors.ConflictError(
            f"The image '{word}' is in use by {_listed(machines)}.",
            hint=f"Remove the machines first: vmctl down {' '.join(machines)}",
        )
    if users.unclear:
        raise errors.ConflictError(
            f"Nothing is removed: it cannot be told what {_listed(users.unclear)} uses.",
            hint="See why: vmctl image tree",
        )


def _listed(machines: Sequence[str]) -> str:
    names = ", ".join(f"'{name}'" for name in machines)
    return f"machine {names}" if len(machines) == 1 else f"machines {names}"


def remove(layout: Layout, connection: Connection, removal: Removal) -> int:
    """Remove an image, or one of its names, and return how many bytes that freed.

    Raises ConflictError when a machine uses it, or another vmctl works on it.
    """
    with contextlib.ExitStack() as stack:
        for key in sorted({removal.digest, *(path.stem for path in removal.records)}):
            lock = layout.lock("image", key)
            deadline = Deadline.after(_LOCK_SECONDS)
            stack.enter_context(locks.hold(lock, deadline, f"Image '{removal.word}'"))
        if removal.keeps:
            for path in removal.records:
                files.remove(path)
            return 0
        directory = layout.image(removal.digest)
        if not directory.exists():
            for path in removal.records:
                files.remove(path)
            return 0
        with _away(layout, connection, removal.word, removal.digest) as draft:
            for path in removal.records:
                files.remove(path)
        freed = inventory.space(draft)
        shutil.rmtree(draft, ignore_errors=True)
        return freed


@contextlib.contextmanager
def _away(layout: Layout, connection: Connection, word: str, digest: str) -> Iterator[pathlib.Path]:
    """Take an image's directory away at once; put it back where it turns out to be needed."""
    _refuse_used(image_users.find(layout, connection), word, digest)
    final = layout.image(digest)
    draft = files.temporary(layout.images / f"{_AWAY}{digest}")
    try:
        final.rename(draft)
    except OSError as problem:
        raise files.unusable(final, problem) from None
    files.sync_directory(layout.images)
    try:
        _refuse_used(image_users.find(layout, connection), word, digest)
        yield draft
    except BaseException:
        draft.rename(final)
        files.sync_directory(layout.images)
        raise


def prunable(layout: Layout, connection: Connection, *, with_cache: bool) -> list[Clearance]:
    """Return what `prune` would clear now; changes nothing."""
    users = image_users.find(layout, connection)
    stale = local.stale(layout)
    found = [*_drafts(layout)]
    found += [
        Clearance(what=What.COPY, name=path.stem, path=str(path), size=path.stat().st_size)
        for path in stale
    ]
    if not _making(layout, ()) and not users.unclear:
        named = inventory.named(layout, without=stale)
        for digest in inventory.digests(layout):
            if digest not in named and not users.of(digest):
                place = layout.image(digest)
                size = inventory.space(place)
                found.append(Clearance(what=What.IMAGE, name=digest, path=str(place), size=size))
    if with_cache:
        found += _cached()
    return found


def _drafts(layout: Layout) -> Iterator[Clearance]:
    """Yield what killed makers and removers left, where nobody is at work on it."""
    for path, key in drafts.leftovers(layout).items():
        if not locks.held(layout.lock("image", key.removeprefix(_AWAY))):
            size = inventory.space(path) if path.is_dir() else path.lstat().st_size
            yield Clearance(what=What.DRAFT, name=key, path=str(path), size=size)


def _cached() -> Iterator[Clearance]:
    with contextlib.suppress(OSError):
        for path in sorted(cache.directory().iterdir()):
            if path.is_dir() and not path.is_symlink() and not _downloading(path):
                size = inventory.space(path)
                yield Clearance(what=What.CACHE, name=path.name, path=str(path), size=size)


def _downloading(directory: pathlib.Path) -> bool:
    return any(locks.held(path) for path in directory.glob("*.lock"))


def _making(layout: Layout, own: Sequence[str]) -> bool:
    """Tell whether an image is being made: it may be about to name what has no name yet."""
    spared = {layout.lock("image", key) for key in own}
    return any(
        path not in spared and locks.held(path) for path in layout.locks.glob("image-*.lock")
    )


def clear(layout: Layout, connection: Connection, clearance: Clearance) -> int:
    """Clear one thing if it still is what it was, and return how many bytes that freed."""
    path = pathlib.Path(clearance.path)
    if clearance.what is What.IMAGE:
        return _clear_image(layout, connection, clearance)
    if clearance.what is What.CACHE:
        if _downloading(path):
            return 0
        shutil.rmtree(path, ignore_errors=True)
        return clearance.size
    key = clearance.name.removeprefix(_AWAY)
    try:
        with locks.hold(layout.lock("image", key), None, f"Image '{key}'"):
            if clearance.what is What.COPY:
                if path in local.stale(layout):
                    files.remove(path)
                return clearance.size
            return _clear_draft(layout, connection, clearance, key)
    except errors.ConflictError:
        return 0


def _clear_draft(layout: Layout, connection: Connection, clearance: Clearance, key: str) -> int:
    path = pathlib.Path(clearance.path)
    if clearance.name.startswith(_AWAY):
        # Killed between taking the image away and looking who needs it.
        needed = image_users.find(layout, connection).of(key)
        if needed and not layout.image(key).exists():
            path.rename(layout.image(key))
            return 0
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return clearance.size


def _clear_image(layout: Layout, connection: Connection, clearance: Clearance) -> int:
    digest = clearance.name
    with (
        contextlib.suppress(errors.ConflictError),
        locks.hold(layout.lock("image", digest), None, f"Image '{digest}'"),
    ):
        with _away(layout, connection, digest[:12], digest) as draft:
            # Whoever makes an image holds a lock until it has its name.
            if inventory.named(layout).get(digest) or _making(layout, [digest]):
                raise errors.ConflictError(f"The image '{digest}' is being made.")
        shutil.rmtree(draft, ignore_errors=True)
        return clearance.size
    return 0
