"""The store as a whole: its format, its id, and whether QEMU can reach it."""

from __future__ import annotations

import os
import stat

from vmctl import errors
from vmctl.store import files
from vmctl.store.layout import FORMAT, Layout


def opened(layout: Layout) -> str:
    """Make the store if need be and return its id.

    Raises HostError where it cannot be made, ConflictError for a format that is not ours.
    """
    known = store_id(layout)
    if known:
        return known
    files.make_directory(layout.home)
    for directory in (layout.machines, layout.images, layout.image_names, layout.locks):
        files.make_directory(directory)
    files.write_json(layout.format_file, {"format": FORMAT, "id": os.urandom(8).hex()})
    return store_id(layout)


def store_id(layout: Layout) -> str:
    """Return the id of an existing store, or nothing; changes nothing."""
    data = files.read_json(layout.format_file)
    if data is None:
        return ""
    if data.get("format") != FORMAT:
        raise errors.ConflictError(
            f"The store '{layout.home}' has format {data.get('format')!r}; "
            f"this vmctl reads format {FORMAT}.",
            hint="Use the vmctl that made it, or another store: export VMCTL_HOME=DIRECTORY",
        )
    return str(data.get("id", ""))


def refuse_unreachable(layout: Layout) -> None:
    """Raise HostError where another account (QEMU's own) cannot cross a directory above the store.

    Only for stores that a user has chosen for qemu:///system; root's default place is reachable.
    """
    path = layout.home
    for directory in (path, *path.parents):
        try:
            mode = os.stat(directory).st_mode
        except OSError:
            continue
        if not mode & stat.S_IXOTH:
            raise errors.HostError(
                f"QEMU runs under its own account and cannot enter '{directory}', "
                f"where the store '{layout.home}' lies.",
                hint=f"Let it pass: chmod o+x '{directory}' - or use your own libvirt: "
                "vmctl -c qemu:///session",
            )
