"""Private directories in which images are made, and what killed makers left of them."""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
from collections.abc import Iterator

from vmctl.store import files
from vmctl.store.layout import Layout


@contextlib.contextmanager
def workshop(layout: Layout, name: str) -> Iterator[pathlib.Path]:
    """Give a private directory in the store's own file system, and remove it afterwards."""
    directory = files.temporary(layout.images / name)
    directory.mkdir(mode=0o700)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def clear(layout: Layout, name: str) -> None:
    """Remove what killed makers of one image left; call it under the image's lock.

    Other images may be in the making at the same time: theirs stay.
    """
    for leftover in leftovers(layout, re.escape(name)):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                leftover.unlink()


def left(layout: Layout, names: str) -> set[str]:
    """Return which of the images whose names match a regular expression have left something."""
    return set(leftovers(layout, names).values())


def leftovers(layout: Layout, names: str = ".+?") -> dict[pathlib.Path, str]:
    """Return all that was left, with the image that it belongs to."""
    # The form of `files.temporary`; another image's name may begin with this one.
    form = re.compile(rf"\.tmp-({names})(\.json)?-[0-9a-f]{{8}}")
    return {
        path: match[1]
        for directory in (layout.images, layout.image_names)
        if directory.is_dir()
        for path in directory.iterdir()
        if (match := form.fullmatch(path.name))
    }
