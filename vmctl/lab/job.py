"""The job: what is run in every mode, and the plain disk that carries it into a guest.

The disk begins with a tar archive (programs and a script) and goes on with random bytes, which the
disk workloads read. A guest finds it by its first bytes, whatever the mode calls it, and answers on
its second serial port. Both exist in every mode; neither is virtio's own.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import random
import shlex
import tarfile
from collections.abc import Sequence

from vmctl.lab import starter, tools
from vmctl.lab.program import Probe
from vmctl.lab.tools import Tool, Where
from vmctl.machine.model import Image
from vmctl.store import files

PLACE = starter.PLACE
"""The archive's directory, and the first bytes of the disk."""

LENGTH = tools.LENGTH
"""Bytes that the disk workloads read, behind the archive."""

_ALIGNMENT = 4 << 20
_TOOL_PATIENCE = 60
"""Seconds after which a tool is ended, that the others have their turn."""

GATEWAY = "10.0.2.2"
"""The host, as a guest on QEMU's user network sees it."""

_TOOL = f"""tool() {{
    name=$1
    shift
    echo "vmctl-lab tool $name"
    timeout {_TOOL_PATIENCE} "$@" 2>&1
    echo
    echo "vmctl-lab status $name $?"
}}
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is run: the probe's workloads, and then each of the `tools`, for `tool_seconds`.

    Of each workload it is `slices` slices of `seconds`, after one that is not told. `port` is where
    the probe's other end listens, `ports` those of the tools; `offset` is where the archive ends.
    """

    workloads: tuple[str, ...]
    seconds: float
    slices: int
    tools: tuple[Tool, ...] = ()
    tool_seconds: int = 2
    port: int = 0
    ports: dict[str, int] = dataclasses.field(default_factory=dict)
    offset: int = _ALIGNMENT

    @property
    def length(self) -> float:
        """Seconds that it takes at least."""
        probing = self.seconds * (self.slices + 1) * len(self.workloads)
        return probing + (self.tool_seconds + 1) * len(self.tools)

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self.offset + LENGTH

    def script(self, peer: str) -> bytes:
        """Return what runs it, given the directory of the programs and the disk.

        `peer` is the host as seen from there, `-` for none.
        """
        probe = ["run", f"{self.seconds:g}", str(self.slices), "$2", str(self.offset), peer]
        lines = ["#!/bin/sh", _line(["$1/probe", *probe, str(self.port), *self.workloads]), _TOOL]
        where = Where("$2", self.offset, peer, self.ports, self.tool_seconds)
        for tool in self.tools:
            if peer == "-" and tool.serves:
                lines.append(f"echo 'vmctl-lab void {tool.workload} there is no network'")
            else:
                lines.append(_line(["tool", tool.workload, *tools.command(tool, "$1", where)]))
        return "\n".join([*lines, "echo vmctl-lab done", ""]).encode()


def _line(words: Sequence[str]) -> str:
    """Return a command of the shell's; `$1` and `$2` in it are the script's own."""
    quoted = (f'"{word}"' if "$1" in word or "$2" in word else shlex.quote(word) for word in words)
    return " ".join(quoted)


def archive(probe: bytes, script: bytes, chosen: Sequence[Tool]) -> bytes:
    """Return the tar archive, which depends on nothing but its content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archived:
        for name, content in ((f"{PLACE}/run", script), (f"{PLACE}/probe", probe)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archived.addfile(entry, io.BytesIO(content))
        tools.archive_into(archived, f"{PLACE}/{tools.DIRECTORY}", chosen)
    return stream.getvalue()


def spread(job: Job, probe: Probe, directory: pathlib.Path) -> tuple[Job, pathlib.Path]:
    """Write the disk, and the programs in a directory of their own for contenders without one.

    Returns the job, which now knows how long the archive is, and the disk. Raises HostError where
    there is no room.
    """
    content = archive(probe.path.read_bytes(), job.script(GATEWAY), job.tools)
    offset = -(-len(content) // _ALIGNMENT) * _ALIGNMENT
    if offset != job.offset:
        # The script in the archive has the offset in it: make it once more.
        job = dataclasses.replace(job, offset=offset)
        content = archive(probe.path.read_bytes(), job.script(GATEWAY), job.tools)
    disk = directory / "disk.raw"
    noise = random.Random(LENGTH).randbytes(job.size - len(content))
    files.write(disk, content + noise, files.SHARED)
    _unpack(content, directory)
    return job, disk


def _unpack(content: bytes, directory: pathlib.Path) -> None:
    """Write the regular files of our own archive; Debian 12's tarfile has no filter to ask for."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archived:
        for entry in archived:
            stream = archived.extractfile(entry)
            if stream is not None:
                path = directory / entry.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(stream.read())
                path.chmod(entry.mode)


def write_initrd(path: pathlib.Path, image: Image) -> None:
    """Write an image's initramfs with the starter behind it."""
    files.write(path, pathlib.Path(image.initrd).read_bytes() + starter.archive(image.name))


def hand_over(owner: str, *paths: pathlib.Path) -> None:
    """Give files to QEMU's own account (+uid:+gid), where vmctl does that itself."""
    if owner:
        uid, gid = (int(part) for part in owner.replace("+", "").split(":"))
        for path in paths:
            os.chown(path, uid, gid, follow_symlinks=False)
