"""Makes a bootable image of a container image: its files on a disk, and tiny's kernel beside it.

The disk holds nothing but what the layers do. How the program is run lies in a second archive
behind tiny's initramfs: the kernel unpacks both, and the second's files replace the first's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import uuid
from typing import Any

from vmctl.deadline import Deadline
from vmctl.images import blobs, catalog, ext4, initramfs, oci, program, recipes, shelf
from vmctl.images.job import Progress
from vmctl.machine.model import DiskFormat, Image
from vmctl.store import files
from vmctl.store.layout import Layout

TINY = "tiny"
"""The image that kernel and initramfs are from."""

READY = "^vmctl-container: ready"

_PARTS = "container"
_READY_SECONDS = 60.0
_MEMORY = 160 << 20
_SECTOR = 512
_BUSYBOX = "/bin/busybox"


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """One import: from where, into which private directory, and how long it may take."""

    layout: Layout
    path: pathlib.Path
    draft: pathlib.Path
    deadline: Deadline
    progress: Progress

    @property
    def what(self) -> str:
        """What errors call the container image."""
        return f"The container image '{self.path}'"


def make(work: Work, tiny: Image, reference: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Put the files of the image into the draft.

    Returns the facts, which depend on the content alone, and where it is from. Raises RefusedError,
    UsageError, HostError, ProgramError, WaitTimeoutError, OSError.
    """
    spool = work.draft / "work"
    spool.mkdir(mode=0o700)
    try:
        return _make(work, tiny, reference, spool)
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def _make(
    work: Work, tiny: Image, reference: str, spool: pathlib.Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    work.progress("checking the layers", 0, 0)
    with blobs.opened(work.path, spool, work.deadline) as source:
        found = oci.read(source, work.what, reference, work.deadline)
        tree = oci.unpack(found, spool, work.what, work.deadline, work.progress)
    runs = program.of(found.config, tree, work.what)
    work.progress("writing the disk", 0, 0)
    disk = work.draft / catalog.disk_name(DiskFormat.RAW)
    contents = spool / oci.CONTENTS
    size = ext4.write(tree, disk, contents, _uuid(found.diff_ids), work.deadline)
    disk.chmod(files.SHARED)
    described = {disk.name: shelf.described(disk)}
    origin = pathlib.Path(tiny.kernel).parent
    for name in (catalog.KERNEL, catalog.BZIMAGE):
        if (origin / name).exists():
            described[name] = _shared(origin / name, work.draft / name)
    first = pathlib.Path(tiny.initrd).read_bytes()
    second = initramfs.archive(_entries(runs, size // _SECTOR) | _tools(first))
    files.write(work.draft / catalog.INITRD, first + second, files.SHARED)
    described[catalog.INITRD] = shelf.described(work.draft / catalog.INITRD)
    facts = {
        "description": f"a container: {' '.join(runs.argv)}"[:200],
        # There is no boot loader on the disk.
        "boot": "kernel",
        "cmdline": tiny.cmdline,
        "drivers": sorted(tiny.drivers),
        "ready_pattern": READY,
        "ready_timeout": _READY_SECONDS,
        "memory": _MEMORY,
        "agent": True,
        "login": "root over ssh; the console is the program's",
        "user": "root",
        "disk_format": DiskFormat.RAW.value,
        "size": size,
        "files": described,
        "layers": found.diff_ids,
        "program": dataclasses.asdict(runs),
    }
    where = {"kind": "container", "reference": found.reference, "config": found.config_digest}
    return facts, where


def _uuid(diff_ids: list[str]) -> str:
    """Return a file system's UUID that equal layers share."""
    digest = hashlib.sha256(json.dumps(diff_ids).encode()).hexdigest()
    return str(uuid.UUID(hex=digest[:32], version=4))


def _entries(runs: program.Program, sectors: int) -> dict[str, initramfs.Entry]:
    entries = {
        path: initramfs.regular(content, 0o755 if content.startswith(b"#!") else 0o644)
        for path, content in recipes.files(_PARTS)
    }
    return entries | {
        "etc/container/run": initramfs.regular(program.script(runs), 0o755),
        "etc/container/settings": initramfs.regular(program.settings(runs, sectors)),
        # The last one in the order of the archive: it is there when everything is.
        "var/container": initramfs.regular(b""),
    }


def _tools(archive: bytes) -> dict[str, initramfs.Entry]:
    """Return links to busybox's commands that lead to it from within the image's files too."""
    return {
        f"tools/{path.rpartition('/')[2]}": initramfs.link("../bin/busybox")
        for path, target in initramfs.links(archive).items()
        if target == _BUSYBOX
    }


def _shared(source: pathlib.Path, place: pathlib.Path) -> dict[str, Any]:
    """Give a file of another image a second name: it takes its place on the disk once."""
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)
        place.chmod(files.SHARED)
    return shelf.described(place)
