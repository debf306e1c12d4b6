"""The recipes that come with vmctl: which images there are, and what each is made from."""

from __future__ import annotations

import difflib
import hashlib
import pathlib
from typing import TYPE_CHECKING

from vmctl import errors, shipped

if TYPE_CHECKING:
    from vmctl.spec.recipe import Recipe

_BUILDER = ("tiny.py", "modules.py", "kernel.py", "initramfs.py")
"""The modules beside this one that decide what is in an image."""


def names() -> list[str]:
    """Return the names of all images, sorted."""
    return sorted(path.stem for path in shipped.directory("images").glob("*.yaml"))


def path(name: str) -> pathlib.Path:
    """Return the file of a recipe. Raises NotFoundError for a name that is no image."""
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise errors.NotFoundError(
            f"There is no image '{name}'.",
            hint=f"Did you mean '{near[0]}'?" if near else "See which there are: vmctl image list",
        )
    return shipped.directory("images") / f"{name}.yaml"


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

    It is compared at each `up`: it reads a few small files and parses none.
    """
    digest = hashlib.sha256()
    recipe = path(name)
    parts = [(recipe.name, recipe.read_bytes()), *files(name)]
    here = pathlib.Path(__file__).parent
    parts += [(module, (here / module).read_bytes()) for module in _BUILDER]
    for place, content in parts:
        digest.update(f"{place}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


def read(name: str) -> Recipe:
    """Return the recipe of an image. Raises NotFoundError."""
    from vmctl.spec import recipe

    return recipe.load(path(name))
