"""Atomic, private writes: temporary name, fsync, rename, fsync of the directory."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from typing import Any

from vmctl import errors

PRIVATE = 0o600
SHARED = 0o644
SEARCHABLE = 0o711
"""Directories that QEMU's own user must cross, but not list."""

_TEMPORARY = ".tmp-"


def make_directory(path: pathlib.Path, mode: int = SEARCHABLE) -> None:
    """Create `path` and its parents below an existing directory, with `mode` under any umask."""
    if path.is_dir():
        return
    if path.parent != path:
        make_directory(path.parent, mode)
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        if not path.is_dir():
            raise errors.ConflictError(
                f"'{path}' should be a directory of the store and is something else."
            ) from None
        return
    except OSError as problem:
        raise unusable(path, problem) from None
    path.chmod(mode)


def unusable(path: pathlib.Path, problem: OSError) -> errors.HostError:
    """Return the error for a store path that cannot be used."""
    return errors.HostError(
        f"Cannot use '{path}': {problem.strerror or problem}.",
        hint="Choose another place for the store: export VMCTL_HOME=DIRECTORY",
    )


def sync_directory(path: pathlib.Path) -> None:
    """Make renames and removals in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary(path: pathlib.Path) -> pathlib.Path:
    """Return an unused name beside `path`; `clear_temporaries` finds such names again."""
    return path.with_name(f"{_TEMPORARY}{path.name}-{os.urandom(4).hex()}")


def clear_temporaries(directory: pathlib.Path) -> None:
    """Remove what killed writers left in `directory`; call it under the directory's lock."""
    for leftover in temporaries(directory):
        with contextlib.suppress(OSError):
            leftover.unlink()


def temporaries(directory: pathlib.Path) -> list[pathlib.Path]:
    """Return what writers have not finished in `directory`: they are at work, or were killed."""
    return sorted(directory.glob(f"{_TEMPORARY}*"))


def write(path: pathlib.Path, content: bytes, mode: int = PRIVATE) -> None:
    """Put `content` at `path` at once: readers see the old file or the new one, never half.

    Raises HostError where the file system refuses (full, read-only, no permission).
    """
    draft = temporary(path)
    try:
        descriptor = os.open(
            draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode
        )
        try:
            os.fchmod(descriptor, mode)
            with os.fdopen(descriptor, "wb", closefd=False) as stream:
                stream.write(content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.rename(path)
        sync_directory(path.parent)
    except OSError as problem:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise unusable(path, problem) from None


def write_json(path: pathlib.Path, data: Any, mode: int = PRIVATE) -> None:
    """Put `data` at `path` as JSON, at once."""
    write(path, json.dumps(data, indent=1, sort_keys=True).encode() + b"\n", mode)


def read_json(path: pathlib.Path) -> dict[str, Any] | None:
    """Return the JSON object at `path`, or None when there is none or it is not one."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def publish(draft: pathlib.Path, path: pathlib.Path) -> None:
    """Give a finished file or directory its real name, durably."""
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if draft.is_dir() else 0)
    descriptor = os.open(draft, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    draft.rename(path)
    sync_directory(path.parent)


def remove(path: pathlib.Path) -> None:
    """Remove a file if it is there, durably."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_directory(path.parent)
