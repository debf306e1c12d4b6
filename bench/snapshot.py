"""What keeping a machine's state, going back to it and cloning cost, against virsh and qemu-img."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
from collections.abc import Callable, Iterator

from bench.rounds import Contender, Group
from bench.site import Site

METRICS = ("wall_seconds", "on disk_bytes")
VMCTL = "vmctl snapshot"
VIRSH = "virsh snapshot"
QEMU_IMG = "qemu-img"
_SIZE = 256
_DATA = 64
_BLOCK = 512


class Snapshots:
    """One machine with data on its disk, running or stopped."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.name = f"{site.prefix}snapshot"
        self.directory = site.home / "bench" / "snapshot"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.spec = self.directory / "vmctl.yaml"
        self.spec.write_text(
            f"name: {self.name}\nproject: {self.name}\nimage: tiny\nmemory: 128MiB\naccel: tcg\n"
            f"devices: virtio\ndisks: [{{name: data, size: {_SIZE}MiB}}]\n"
        )
        self.disk = site.home / "machines" / self.name / "data.qcow2"

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """Have the machine run, with data on its disk, for the length of the block."""
        self._ours("up", "-q", str(self.spec))
        try:
            script = f"dd if=/dev/urandom of=/data/full bs=1M count={_DATA}; sync"
            self._ours("exec", self.name, "--", "sh", "-c", script)
            yield
        finally:
            self._ours("down", "-y", "-q", self.name)

    def create(self) -> tuple[Group, list[Contender]]:
        """Return those who keep disks and memory of the running guest."""
        return self._group(
            "A snapshot with memory of a running guest of 128 MiB",
            VIRSH,
            {
                VMCTL: (self._create, "the tree and the definition kept, synced"),
                VIRSH: (self._virsh_create, "`snapshot-create-as`, internal, with memory"),
            },
        )

    def restore(self) -> tuple[Group, list[Contender]]:
        """Return those who put a running guest back, disks and memory."""
        return self._group(
            "A running guest put back, disks and memory",
            VIRSH,
            {
                VMCTL: (self._restore, "--no-safety; clock set by the agent, ports forwarded"),
                VIRSH: (self._virsh_restore, "`snapshot-revert`, which starts a new QEMU"),
            },
        )

    def stopped(self) -> tuple[Group, list[Contender]]:
        """Return those who keep and copy the disks of the stopped machine."""
        self._ours("stop", "-q", self.name)
        return self._group(
            "A snapshot of a stopped machine",
            QEMU_IMG,
            {
                VMCTL: (self._create, ""),
                VIRSH: (self._virsh_create, "`snapshot-create-as`"),
                QEMU_IMG: (self._qemu_create, "`snapshot -c`"),
            },
        )

    def clone(self) -> tuple[Group, list[Contender]]:
        """Return those who make a machine, or a disk, of the stopped machine's disk."""
        return self._group(
            f"A clone of a stopped machine, {_DATA} MiB of data",
            QEMU_IMG,
            {
                "vmctl clone": (self._clone, "a machine of its own, defined"),
                QEMU_IMG: (self._convert, "`convert`: the disk alone"),
            },
        )

    def _group(
        self, title: str, baseline: str, runs: dict[str, tuple[Callable[[], dict[str, float]], str]]
    ) -> tuple[Group, list[Contender]]:
        notes = {name: note for name, (_, note) in runs.items()}
        contenders = [Contender(name, run) for name, (run, _) in runs.items()]
        return Group(title, baseline, METRICS, notes, subject=contenders[0].name), contenders

    def _ours(self, *words: str) -> None:
        self.site.call(*self.site.vmctl, *words)

    def _virsh(self, *words: str) -> None:
        self.site.call("virsh", "-c", self.site.uri, *words)

    def _measured(self, *command: str) -> dict[str, float]:
        before = _taken(self.disk)
        took = self.site.timed(*command)
        grown = max(0.0, _taken(self.disk) - before)
        return {"wall_seconds": took["wall_seconds"], "on disk_bytes": grown}

    def _create(self) -> dict[str, float]:
        sample = self._measured(*self.site.vmctl, "snapshot", "create", "-q", self.name, "it")
        self._ours("snapshot", "delete", "-y", "-q", self.name, "it")
        return sample

    def _virsh_create(self) -> dict[str, float]:
        words = ("virsh", "-c", self.site.uri, "snapshot-create-as", self.name, "theirs")
        sample = self._measured(*words)
        self._virsh("snapshot-delete", self.name, "theirs")
        return sample

    def _restore(self) -> dict[str, float]:
        self._ours("snapshot", "create", "-q", self.name, "it")
        words = ("snapshot", "restore", "-q", "-y", "--no-safety", self.name, "it")
        sample = self._measured(*self.site.vmctl, *words)
        self._ours("snapshot", "delete", "-y", "-q", self.name, "it")
        return sample

    def _virsh_restore(self) -> dict[str, float]:
        self._virsh("snapshot-create-as", self.name, "theirs")
        words = ("virsh", "-c", self.site.uri, "snapshot-revert", self.name, "theirs")
        sample = self._measured(*words)
        self._virsh("snapshot-delete", self.name, "theirs")
        return sample

    def _qemu_create(self) -> dict[str, float]:
        sample = self._measured("qemu-img", "snapshot", "-c", "bare", str(self.disk))
        self.site.call("qemu-img", "snapshot", "-d", "bare", str(self.disk))
        return sample

    def _clone(self) -> dict[str, float]:
        new = f"{self.name}-c"
        took = self.site.timed(*self.site.vmctl, "clone", "-q", self.name, new)
        taken = _taken(self.site.home / "machines" / new)
        self._ours("down", "-y", "-q", new)
        return {"wall_seconds": took["wall_seconds"], "on disk_bytes": taken}

    def _convert(self) -> dict[str, float]:
        target = self.directory / "copy.qcow2"
        took = self.site.timed("qemu-img", "convert", "-O", "qcow2", str(self.disk), str(target))
        sample = {"wall_seconds": took["wall_seconds"], "on disk_bytes": _taken(target)}
        target.unlink()
        return sample


def groups(site: Site) -> Iterator[Callable[[], tuple[Group, list[Contender]]]]:
    """Yield what there is to measure, with the machine there meanwhile."""
    snapshots = Snapshots(site)
    with snapshots.there():
        yield snapshots.create
        yield snapshots.restore
        yield snapshots.stopped
        yield snapshots.clone
    shutil.rmtree(snapshots.directory, ignore_errors=True)


def _taken(path: pathlib.Path) -> float:
    """Return what a file, or all files of a directory, take on disk, in bytes."""
    if path.is_dir():
        return sum(_taken(each) for each in path.iterdir())
    return float(path.stat().st_blocks * _BLOCK)
