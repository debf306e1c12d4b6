"""What is in the image store: every name, every file that was copied, and what nobody names."""

from __future__ import annotations

import dataclasses
import enum
import os
import pathlib
import re
from collections.abc import Collection, Iterator
from typing import Any

from vmctl.images import catalog, local, recipes
from vmctl.store import files
from vmctl.store.layout import Layout

_BLOCK = 512
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Kind(enum.StrEnum):
    """How an image came into the store, or that it is not there."""

    ABSENT = "not built"
    BUILT = "built"
    PULLED = "pulled"
    IMPORTED = "imported"
    COPIED = "copied"
    UNNAMED = "no name"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image; `made` is seconds since 1970, `size` what it takes on the disk (bytes).

    `source` is the file or the address that it is from.
    """

    name: str
    kind: Kind
    digest: str = ""
    size: int = 0
    made: float = 0.0
    description: str = ""
    source: str = ""


def items(layout: Layout) -> list[Item]:
    """Return all images, those that could be built included; unnamed ones last."""
    found = [_named(layout, name) for name in catalog.names(layout)]
    found += _copied(layout)
    found += _addresses(layout, {item.source for item in found})
    named = {item.digest for item in found}
    return found + [
        _item(layout, "", Kind.UNNAMED, digest) for digest in digests(layout) if digest not in named
    ]


def digests(layout: Layout) -> list[str]:
    """Return the digests of all images that are in the store, sorted."""
    try:
        return sorted(name for name in os.listdir(layout.images) if _DIGEST.fullmatch(name))
    except OSError:
        return []


def named(layout: Layout, without: Collection[pathlib.Path] = ()) -> dict[str, list[str]]:
    """Return what stands for each digest: names of images, paths of copied files, addresses.

    Records in `without` do not count.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(set(layout.image_names.glob("*.json")) - set(without)):
        record = files.read_json(path) or {}
        shown = str(record.get("path") or path.stem)
        found.setdefault(str(record.get("digest", "")), []).append(shown)
    for pin in _pins(layout):
        found.setdefault(str(pin.get("sha256", "")), []).append(str(pin.get("url", "")))
    found.pop("", None)
    return found


def matching(layout: Layout, digest: str) -> list[str]:
    """Return the digests in the store that begin with these digits (at least six)."""
    if not re.fullmatch(r"[0-9a-f]{6,64}", digest):
        return []
    return [each for each in digests(layout) if each.startswith(digest)]


def space(directory: pathlib.Path) -> int:
    """Return how many bytes of the disk would be free without a directory.

    A file with a second name in another image stays for that one.
    """
    total = 0
    for above, _, names in os.walk(directory):
        for name in names:
            try:
                status = os.lstat(os.path.join(above, name))
            except OSError:
                continue
            total += status.st_blocks * _BLOCK if status.st_nlink == 1 else 0
    return total


def _item(layout: Layout, name: str, kind: Kind, digest: str, source: str = "") -> Item:
    facts = catalog.facts(layout, digest) or {}
    directory = layout.image(digest)
    size, made = 0, 0.0
    for file in ("", *facts.get("files", {})):
        try:
            status = os.lstat(directory / file)
        except OSError:
            continue
        size += status.st_blocks * _BLOCK if file else 0
        made = made or status.st_mtime
    return Item(
        name=name,
        kind=kind,
        digest=digest,
        size=size,
        made=made,
        description=str(facts.get("description", "")),
        source=source or str(facts.get("source", "")),
    )


def _named(layout: Layout, name: str) -> Item:
    record = catalog.record(layout, name)
    imported: dict[str, Any] = record.get(catalog.IMPORTED) or {}
    digest = str(record.get("digest", ""))
    if imported:
        return _item(layout, name, Kind.IMPORTED, digest, str(imported.get("from", "")))
    recipe = recipes.read(name)
    pulled = recipe.builder.value == "pull"
    found = catalog.find(layout, name)
    if not found.present:
        kind, source = Kind.ABSENT, recipe.url
        return Item(name=name, kind=kind, description=recipe.description, source=source)
    return _item(layout, name, Kind.PULLED if pulled else Kind.BUILT, found.digest, recipe.url)


def _copied(layout: Layout) -> Iterator[Item]:
    for path in sorted(layout.image_names.glob(f"{local.KEY}-*.json")):
        record = files.read_json(path) or {}
        digest, source = str(record.get("digest", "")), str(record.get("path", ""))
        if catalog.stored(layout, digest) is not None:
            yield _item(layout, os.path.basename(source), Kind.COPIED, digest, source)


def _addresses(layout: Layout, known: set[str]) -> Iterator[Item]:
    """Yield what specs have pulled by address; the addresses of recipes are listed by name."""
    for pin in _pins(layout):
        url, digest = str(pin.get("url", "")), str(pin.get("sha256", ""))
        if url not in known and catalog.stored(layout, digest) is not None:
            yield _item(layout, url.rpartition("/")[2], Kind.PULLED, digest, url)


def _pins(layout: Layout) -> Iterator[dict[str, Any]]:
    for path in sorted(layout.image_pin("any").parent.glob("*.json")):
        yield files.read_json(path) or {}
