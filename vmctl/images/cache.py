"""The user's cache of downloaded packages, by sha256. It may be removed at any time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil

from vmctl.store import files


def directory() -> pathlib.Path:
    """Return where the cache is: /var/cache/vmctl for root, else the user's own (XDG)."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen and os.path.isabs(chosen):
        return pathlib.Path(chosen) / "vmctl"
    if os.geteuid() == 0:
        return pathlib.Path("/var/cache/vmctl")
    return pathlib.Path("~/.cache/vmctl").expanduser()


def sha256_of(path: pathlib.Path) -> str:
    """Return the sha256 (hex) of a file; OSError where it cannot be read."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def package(sha256: str) -> pathlib.Path:
    """Return where the package with this sha256 lies, or would lie."""
    return directory() / "packages" / f"{sha256}.deb"


def find_package(sha256: str) -> pathlib.Path | None:
    """Return the cached package if it is there and whole; a damaged one is removed."""
    path = package(sha256)
    with contextlib.suppress(OSError):
        if sha256_of(path) == sha256:
            return path
        path.unlink()
    return None


def keep_package(download: pathlib.Path, sha256: str) -> pathlib.Path:
    """Move a checked download into the cache and return its place. Raises HostError."""
    path = package(sha256)
    files.make_directory(path.parent, 0o755)
    draft = files.temporary(path)
    try:
        shutil.move(download, draft)
        draft.chmod(files.SHARED)
        files.publish(draft, path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise files.unusable(path, problem) from None
    return path
