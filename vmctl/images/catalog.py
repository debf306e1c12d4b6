"""Finds images by name: those in the store, and those that could be built."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from vmctl import errors
from vmctl.images import recipes
from vmctl.machine.model import DiskFormat, Image
from vmctl.store import files
from vmctl.store.layout import Layout

KERNEL = "kernel"
BZIMAGE = "bzimage"
"""The kernel as the distribution ships it, for firmware that cannot start the uncompressed one."""

INITRD = "initrd"
FACTS = "image.json"
IMPORTED = "imported"
"""The key of a name's record that says where an imported image is from."""

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_KEY = re.compile(r"[a-z]+-[0-9a-f]{64}")
"""What the records of files and addresses are called, instead of a name."""


def disk_name(format: DiskFormat) -> str:  # noqa: A002
    """Return the name of the file that holds an image's disk."""
    return f"disk.{format}"


def names(layout: Layout) -> list[str]:
    """Return the names of all images, sorted: those of recipes, built or not, and imported ones."""
    named = {path.stem for path in layout.image_names.glob("*.json") if is_name(path.stem)}
    imported = {name for name in named if IMPORTED in record(layout, name)}
    return sorted({*recipes.names(), *imported})


def is_name(text: str) -> bool:
    """Tell the name of an image from that of a file or an address (see `local`, `pull`)."""
    return bool(_NAME.fullmatch(text)) and not _KEY.fullmatch(text)


def find(layout: Layout, name: str) -> Image:
    """Return an image as it is in the store.

    An image that is not there, or was made from an older recipe, has an empty digest. Raises
    NotFoundError for a name that is no image. It runs at each `up`, and reads two small files and
    those of the recipe.
    """
    known = record(layout, name)
    if IMPORTED in known:
        image = stored(layout, str(known.get("digest", "")))
        if image is None:
            raise errors.NotFoundError(
                f"The image '{name}' was imported, and its files are not in the store any more.",
                hint=f"Import it again: vmctl image import --replace {name} FILE",
            )
        return dataclasses.replace(image, name=name)
    _require_name(layout, name)
    if known and known.get("recipe") == recipes.fingerprint(name):
        image = stored(layout, str(known.get("digest", "")))
        if image is not None:
            return image
    return _absent(layout, name)


def _require_name(layout: Layout, name: str) -> None:
    """Raise NotFoundError for a name without a recipe, with the nearest name there is."""
    try:
        recipes.path(name)
    except errors.NotFoundError as problem:
        near = difflib.get_close_matches(name, names(layout), n=1)
        hint = f"Did you mean '{near[0]}'?" if near else problem.hint
        raise errors.NotFoundError(problem.message, hint=hint) from None


def record(layout: Layout, name: str) -> dict[str, Any]:
    """Return what the store keeps under an image's name: its digest and where it is from."""
    if not _NAME.fullmatch(name):
        return {}
    return files.read_json(layout.image_names / f"{name}.json") or {}


def record_path(layout: Layout, name: str) -> pathlib.Path:
    """Return the file that says which digest a recipe's name stands for."""
    recipes.path(name)
    return layout.image_names / f"{name}.json"


def facts(layout: Layout, digest: str) -> dict[str, Any] | None:
    """Return what was recorded when the image was made, or None when it is not in the store."""
    if len(digest) != 64 or not digest.isalnum():
        return None
    return files.read_json(layout.image(digest) / FACTS)


def stored(layout: Layout, digest: str) -> Image | None:
    """Return the image with this digest, or None when it is not (or only partly) in the store."""
    known = facts(layout, digest)
    directory = layout.image(digest)
    if known is None or not all((directory / name).is_file() for name in _needed(known)):
        return None
    return _image(known, digest, directory)


def _needed(known: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the files without which an image is of no use: its disk, or what starts it."""
    format_ = _disk_format(known)
    if format_ is None:
        return KERNEL, INITRD
    return (disk_name(format_), *((KERNEL, INITRD) if _starts_directly(known) else ()))


def _starts_directly(known: Mapping[str, Any]) -> bool:
    """Tell whether an image has a kernel for QEMU to start, and so a command line for it."""
    return _disk_format(known) is None or bool(known.get("cmdline"))


def _disk_format(known: Mapping[str, Any]) -> DiskFormat | None:
    written = known.get("disk_format")
    return DiskFormat(written) if written in list(DiskFormat) else None


def _image(known: Mapping[str, Any], digest: str, directory: pathlib.Path) -> Image:
    bzimage = directory / BZIMAGE
    disk_format = _disk_format(known)
    return Image(
        name=str(known.get("name", "")),
        digest=digest,
        disk=str(directory / disk_name(disk_format)) if disk_format else "",
        disk_format=disk_format or DiskFormat.QCOW2,
        size=int(known.get("size", 0)),
        kernel=str(directory / KERNEL) if _starts_directly(known) else "",
        efi_kernel=str(bzimage) if bzimage.is_file() else "",
        initrd=str(directory / INITRD) if _starts_directly(known) else "",
        cmdline=str(known.get("cmdline", "")),
        drivers=frozenset(known.get("drivers", ())),
        ready_pattern=str(known.get("ready_pattern", "")),
        ready_timeout=float(known.get("ready_timeout", 0.0)),
        memory=int(known.get("memory", 0)),
        agent=bool(known.get("agent", False)),
        login=str(known.get("login", "")),
        cloud_init=bool(known.get("cloud_init", False)),
        user=str(known.get("user", "")),
        ready_when=str(known.get("ready_when", "")),
        boot=str(known.get("boot", "")),
        container="program" in known,
    )


def _absent(layout: Layout, name: str) -> Image:
    """Return what a recipe promises; the paths say that the digest is not known yet."""
    return _image(promised(name), "", layout.images / f"not-built-{name}")


def promised(name: str) -> dict[str, Any]:
    """Return the part of an image's facts that its recipe decides."""
    recipe = recipes.read(name)
    disk = {} if recipe.builder.value == "tiny" else {"disk_format": recipe.format.value}
    return {
        **disk,
        "name": recipe.name,
        "description": recipe.description,
        "cmdline": recipe.cmdline,
        "drivers": sorted(recipe.drivers),
        "ready_pattern": recipe.ready.pattern if recipe.ready else "",
        "ready_timeout": recipe.ready.timeout if recipe.ready else 0.0,
        "memory": recipe.memory or 0,
        "agent": recipe.agent,
        "login": recipe.login,
        "cloud_init": recipe.cloud_init,
        "user": recipe.user,
        "boot": recipe.boot.value if recipe.boot else "",
        "ready_when": recipe.ready.when.value if recipe.ready and recipe.ready.when else "",
    }
