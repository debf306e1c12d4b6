"""Recipes: which images there are, and what each is made from.

Some come with vmctl; users add their own for images that are pulled, in their configuration
directory. One of the user's goes before one of the same name that comes with vmctl.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import pathlib
import re
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vmctl import errors, shipped

if TYPE_CHECKING:
    from vmctl.spec.recipe import Recipe

_BUILDERS = {
    "tiny": ("tiny.py", "modules.py", "kernel.py", "initramfs.py"),
    "debian": (
        *("debian.py", "bootstrap.py", "grub.py", "partitions.py"),
        *("modules.py", "kernel.py", "initramfs.py"),
    ),
    "pull": (),
}
"""The modules beside this one that decide what is in an image, for each builder."""

_WITH_VMCTL = "lab"
"""The builder that puts vmctl itself into an image."""

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")


def names() -> list[str]:
    """Return the names of all images, sorted."""
    return sorted(_paths())


def own_directory() -> pathlib.Path:
    """Return where the user's own recipes lie (XDG)."""
    chosen = os.environ.get("XDG_CONFIG_HOME")
    top = pathlib.Path(chosen if chosen and os.path.isabs(chosen) else "~/.config").expanduser()
    return top / "vmctl" / "images"


def _paths() -> dict[str, pathlib.Path]:
    places = (shipped.directory("images"), own_directory())
    return {
        path.stem: path
        for place in places
        for path in place.glob("*.yaml")
        if _NAME.fullmatch(path.stem)
    }


def path(name: str) -> pathlib.Path:
    """Return the file of a recipe. Raises NotFoundError for a name that is no image."""
    known = _paths()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise errors.NotFoundError(
            f"There is no image '{name}'.",
            hint=f"Did you mean '{near[0]}'?" if near else "See which there are: vmctl image list",
        )
    found = known[name]
    if found.parent == own_directory():
        _refuse_foreign(found)
    return found


def _refuse_foreign(recipe: pathlib.Path) -> None:
    """Refuse a recipe that somebody else can write: it says what machines are made from."""
    for place in (recipe, recipe.parent):
        status = place.stat()
        # Where everybody has a group of their own, files are writable to it by default.
        others = stat.S_IWOTH | (0 if status.st_gid == os.getegid() else stat.S_IWGRP)
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & others:
            raise errors.RefusedError(
                f"The recipe '{recipe}' is not used, because others can change '{place}'.",
                hint=f"Make it yours alone: chmod go-w '{place}'",
            )


def files(name: str) -> list[tuple[str, bytes]]:
    """Return the project's own part of an image: path in the guest and content, sorted."""
    top = shipped.directory("images") / name
    return [
        (str(found.relative_to(top)), found.read_bytes())
        for found in sorted(top.rglob("*"))
        if found.is_file()
    ]


def fingerprint(name: str) -> str:
    """Return the sha256 (hex) of all that vmctl itself puts into an image.

    It is compared at each `up`: it reads a few small files and parses none. An image with vmctl in
    it is the exception: all of vmctl is read.
    """
    recipe = path(name)
    found = re.search(rb"^builder: *([a-z]+)", recipe.read_bytes(), re.MULTILINE)
    builder = found[1].decode() if found else ""
    own = own_sources() if builder == _WITH_VMCTL else []
    return _digest((*_parts(name, builder), *own))


def system_fingerprint(layers: Iterable[str]) -> str:
    """Return the sha256 (hex) of what goes into a Debian system of several recipes' files."""
    return _digest(part for name in layers for part in _parts(name, "debian"))


def own_sources() -> list[tuple[str, bytes]]:
    """Return vmctl itself as it is installed: path below the package, and content, sorted.

    The recipes and templates are at the place that they have in a wheel.
    """
    package = pathlib.Path(__file__).parents[1]
    found = [
        (path.relative_to(package).as_posix(), path)
        for path in package.rglob("*")
        if "shipped" not in path.relative_to(package).parts
    ]
    for data in ("images", "templates"):
        top = shipped.directory(data)
        found += [
            (f"shipped/{data}/{path.relative_to(top).as_posix()}", path) for path in top.rglob("*")
        ]
    return [
        (name, path.read_bytes())
        for name, path in sorted(found)
        if path.is_file() and "__pycache__" not in path.parts
    ]


def _parts(name: str, builder: str) -> list[tuple[str, bytes]]:
    """Return a recipe, its files, and the modules of a builder."""
    recipe = path(name)
    here = pathlib.Path(__file__).parent
    modules = ((each, (here / each).read_bytes()) for each in _BUILDERS.get(builder, ()))
    return [(recipe.name, recipe.read_bytes()), *files(name), *modules]


def _digest(parts: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for place, content in parts:
        digest.update(f"{place}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


def read(name: str) -> Recipe:
    """Return the recipe of an image. Raises NotFoundError, and UsageError for one of no use."""
    from vmctl.spec import recipe

    place = path(name)
    found = recipe.load(place)
    if found.name != name:
        raise errors.UsageError(
            f"The recipe '{place}' calls its image '{found.name}'.",
            hint=f"Write 'name: {name}', or rename the file.",
        )
    if place.parent == own_directory() and found.builder.value != "pull":
        raise errors.UsageError(
            f"The recipe '{place}' names the builder '{found.builder.value}'; a recipe of one's "
            "own can only pull.",
            hint="Write 'builder: pull' and a url.",
        )
    return found
