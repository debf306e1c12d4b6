"""Finished images in the user's cache: several stores then build one only once.

Nothing relies on it; it may be removed at any time. What is there is believed only after its
digests have been compared.
"""

from __future__ import annotations

import os
import pathlib
import shutil

from vmctl import errors
from vmctl.images import cache
from vmctl.images.job import Product
from vmctl.store import files

_FACTS = "facts.json"


def _place(name: str, inputs: str) -> pathlib.Path:
    return cache.directory() / "images" / f"{name}-{inputs}"


def take(name: str, inputs: str, directory: pathlib.Path) -> Product | None:
    """Copy the image that was made of these inputs into `directory`; None where there is none."""
    place = _place(name, inputs)
    known = files.read_json(place / _FACTS)
    if known is None:
        return None
    found = {}
    try:
        for file, sha256 in known["files"].items():
            found[file] = directory / os.path.basename(file)
            shutil.copyfile(place / file, found[file])
            if cache.sha256_of(found[file]) != sha256:
                raise ValueError(file)
        return Product(files=found, inputs=inputs, facts=dict(known["facts"]))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        for copy in found.values():
            copy.unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        return None


def keep(name: str, product: Product) -> None:
    """Copy a finished image into the cache, in place of older ones of this name.

    A cache that cannot be written is no failure.
    """
    place = _place(name, product.inputs)
    draft = files.temporary(place)
    try:
        files.make_directory(place.parent, 0o755)
        for old in (*place.parent.glob(f"{name}-*"), *place.parent.glob(f".tmp-{name}-*")):
            shutil.rmtree(old, ignore_errors=True)
        draft.mkdir()
        sums = {}
        for file, source in product.files.items():
            shutil.copyfile(source, draft / file)
            sums[file] = cache.sha256_of(draft / file)
        facts = {"files": sums, "facts": dict(product.facts)}
        files.write_json(draft / _FACTS, facts, files.SHARED)
        draft.chmod(0o755)
        files.publish(draft, place)
    except (OSError, errors.VmctlError):
        shutil.rmtree(draft, ignore_errors=True)
