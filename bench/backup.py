"""What a backup of a running machine costs: vmctl's against libvirt's bare job and plain copies."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

import libvirt

from bench.rounds import Contender, Group
from bench.site import BenchError, Site

METRICS = ("wall_seconds", "on disk_bytes")
VMCTL = "vmctl backup create"
JOB = "libvirt's job"
CONVERT = "qemu-img convert"
COPY = "cp --sparse"
_SIZE = 512
_FULL = 256
_CHANGED = 16
_BLOCK = 512
_POLL = 0.01


class Backups:
    """One running machine with data on its disk, and those who copy it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.name = f"{site.prefix}backup"
        self.directory = site.home / "bench" / "backup"
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in (site.home / "bench", self.directory):
            path.chmod(0o711)
        self.spec = self.directory / "vmctl.yaml"
        self.spec.write_text(
            f"name: {self.name}\nproject: {self.name}\nimage: tiny\nmemory: 128MiB\naccel: tcg\n"
            f"devices: virtio\ndisks: [{{name: data, size: {_SIZE}MiB}}]\n"
        )
        self.disk = site.home / "machines" / self.name / "data.qcow2"
        self._numbers = iter(range(1, 10**6))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Have the machine run, with data on its disk, for the length of the block."""
        self.site.call(*self.site.vmctl, "up", "-q", str(self.spec))
        try:
            self._write("full", _FULL)
            yield
        finally:
            self.site.call(*self.site.vmctl, "down", "-y", "-q", self.name)
            shutil.rmtree(self.site.home / "backups" / self.name, ignore_errors=True)

    def full(self) -> tuple[Group, list[Contender]]:
        """Return those who copy all of the disk."""
        notes = {
            VMCTL: "digests included, synced",
            JOB: "`backupBegin` with a checkpoint, as virsh backup-begin; neither checked nor "
            "synced",
            CONVERT: "-U, of a disk that is written to: no backup, a bound",
            COPY: "of the overlay alone, while it is written to: no backup, a bound",
        }
        contenders = [
            Contender(VMCTL, lambda: self._ours("--full")),
            Contender(JOB, lambda: self._job("")),
            Contender(CONVERT, lambda: self._copied("qemu-img", "convert", "-U", "-O", "qcow2")),
            Contender(COPY, lambda: self._copied("cp", "--sparse=always", "--reflink=never")),
        ]
        title = f"A full backup of a running machine, {_FULL} MiB of data"
        return Group(title, JOB, METRICS, notes, subject=VMCTL), contenders

    def changes(self) -> tuple[Group, list[Contender]]:
        """Return those who copy what changed."""
        notes = {VMCTL: "digests included, synced", JOB: "`backupBegin` from a checkpoint"}
        contenders = [
            Contender(VMCTL, self._ours_changed),
            Contender(JOB, self._job_changed),
        ]
        title = f"An incremental backup, {_CHANGED} MiB written since"
        return Group(title, JOB, METRICS, notes, subject=VMCTL), contenders

    def _write(self, name: str, size: int) -> None:
        script = f"dd if=/dev/urandom of=/data/{name} bs=1M count={size}; sync"
        self.site.call(*self.site.vmctl, "exec", self.name, "--", "sh", "-c", script)

    def _ours(self, *words: str) -> dict[str, float]:
        took = self.site.timed(*self.site.vmctl, "backup", "create", "-q", *words, self.name)
        shelf = self.site.home / "backups" / self.name
        newest = sorted(path for path in shelf.iterdir() if path.is_dir())[-1]
        sample = {"wall_seconds": took["wall_seconds"], "on disk_bytes": _taken(newest)}
        if words:
            shutil.rmtree(shelf)
        return sample

    def _ours_changed(self) -> dict[str, float]:
        shutil.rmtree(self.site.home / "backups" / self.name, ignore_errors=True)
        self.site.call(*self.site.vmctl, "backup", "create", "-q", self.name)
        self._write("changed", _CHANGED)
        return self._ours()

    def _job_changed(self) -> dict[str, float]:
        since = self._begun("")[0]
        self._write("changed", _CHANGED)
        return self._job(since)

    def _job(self, since: str) -> dict[str, float]:
        name, target, seconds = self._begun(since)
        sample = {"wall_seconds": seconds, "on disk_bytes": _taken(target)}
        target.unlink()
        domain = self.site.connection.lookupByName(self.name)
        for checkpoint in filter(None, (name, since)):
            domain.checkpointLookupByName(checkpoint).delete()
        return sample

    def _begun(self, since: str) -> tuple[str, pathlib.Path, float]:
        """Have libvirt copy into a new image; returns the checkpoint, the image, the seconds."""
        domain = self.site.connection.lookupByName(self.name)
        name = f"bench-{next(self._numbers)}"
        target = self.directory / f"{name}.qcow2"
        began = time.monotonic()
        size = domain.blockInfo("vda")[0]
        command = ["qemu-img", "create", "-q", "-f", "qcow2", str(target), str(size)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        owner = self.disk.stat()
        os.chown(target, owner.st_uid, owner.st_gid)
        incremental = f"<incremental>{since}</incremental>" if since else ""
        domain.backupBegin(
            f"<domainbackup mode='push'>{incremental}<disks><disk name='vda' backup='yes' "
            f"type='file'><driver type='qcow2'/><target file='{target}'/></disk></disks>"
            "</domainbackup>",
            f"<domaincheckpoint><name>{name}</name><disks><disk name='vda' checkpoint='bitmap'/>"
            "</disks></domaincheckpoint>",
            libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL,
        )
        while domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
            time.sleep(_POLL)
        seconds = time.monotonic() - began
        if not domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED).get("success"):
            raise BenchError("libvirt's backup did not end well")
        return name, target, seconds

    def _copied(self, *command: str) -> dict[str, float]:
        target = self.directory / "copy.qcow2"
        took = self.site.timed(*command, str(self.disk), str(target))
        sample = {"wall_seconds": took["wall_seconds"], "on disk_bytes": _taken(target)}
        target.unlink()
        return sample


def groups(site: Site) -> Iterator[Callable[[], tuple[Group, list[Contender]]]]:
    """Yield what there is to measure, with the machine running meanwhile."""
    backups = Backups(site)
    with backups.running():
        yield backups.full
        yield backups.changes


def _taken(path: pathlib.Path) -> float:
    """Return what a file, or all files of a directory, take on disk, in bytes."""
    if path.is_dir():
        return sum(_taken(each) for each in path.iterdir())
    return float(path.stat().st_blocks * _BLOCK)
