"""Finds images by name: those in the store, and those that could be built."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from vmctl.images import recipes
from vmctl.machine.model import DiskFormat, Image
from vmctl.store import files
from vmctl.store.layout import Layout

KERNEL = "kernel"
BZIMAGE = "bzimage"
"""The kernel as the distribution ships it, for firmware that cannot start the uncompressed one."""

INITRD = "initrd"
FACTS = "image.json"


def disk_name(format: DiskFormat) -> str:  # noqa: A002
    """Return the name of the file that holds an image's disk."""
    return f"disk.{format}"


def names() -> list[str]:
    """Return the names of all images, whether built or not."""
    return recipes.names()


def find(layout: Layout, name: str) -> Image:
    """Return an image as it is in the store.

    An image that is not there, or was made from an older recipe, has an empty digest. Raises
    NotFoundError for a name that is no image.
    """
    record = files.read_json(record_path(layout, name))
    if record is not None and record.get("recipe") == recipes.fingerprint(name):
        image = stored(layout, str(record.get("digest", "")))
        if image is not None:
            return image
    return _absent(layout, name)


def record_path(layout: Layout, name: str) -> pathlib.Path:
    """Return the file that says which digest a name stands for."""
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
    return (disk_name(format_),) if format_ else (KERNEL, INITRD)


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
        kernel="" if disk_format else str(directory / KERNEL),
        efi_kernel=str(bzimage) if bzimage.is_file() else "",
        initrd="" if disk_format else str(directory / INITRD),
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
    )


def _absent(layout: Layout, name: str) -> Image:
    """Return what a recipe promises; the paths say that the digest is not known yet."""
    return _image(promised(name), "", layout.images / f"not-built-{name}")


def promised(name: str) -> dict[str, Any]:
    """Return the part of an image's facts that its recipe decides."""
    recipe = recipes.read(name)
    return {
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
        "ready_when": recipe.ready.when.value if recipe.ready and recipe.ready.when else "",
    }
