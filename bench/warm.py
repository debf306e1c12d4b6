"""Time to a command's first output in a guest that no job has seen, by where the guest is from.

The peers end sooner: they put a guest back and run nothing in it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence

from bench.boot import MODES
from bench.rounds import Contender, Group
from bench.site import PATIENCE, BenchError, Site

METRICS = ("first output_seconds",)
POOLED = "vmctl run --pool"
CLAIM = "a claim, and the command"
COLD = "vmctl run"
RESTORE = "virsh restore"
LOADVM = "loadvm in the running QEMU"
NOTES = {
    POOLED: "from the start of the program; a slot is ready",
    CLAIM: "the same in a process that has its modules loaded: from the claim to the first byte",
    COLD: "a machine made for it, booted and thrown away",
    RESTORE: "`virsh restore` of the same guest until it returns; no command is run",
    LOADVM: "QEMU's own, through virsh qemu-monitor-command, until it returns; no command is run",
}
SLOTS = 2

_MODE = "tcg-virtio"
_KEPT = "warm"
_POLL = 0.05
_COMMAND = ("sh", "-c", "echo first")


class Warm:
    """A pool, and the same machine twice more: one that is saved, one that QEMU resets itself."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.pool = f"{site.prefix}warm"
        self.saved = f"{site.prefix}saved"
        self.reset = f"{site.prefix}reset"
        self.directory = site.home / "bench" / "warm"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)
        self.state = self.directory / "saved.state"

    @contextlib.contextmanager
    def prepared(self) -> Iterator[tuple[Group, list[Contender]]]:
        """Have all of them for the length of the block."""
        call, vmctl = self.site.call, self.site.vmctl
        try:
            slots = ("--slots", str(SLOTS), "--allow-tcg")
            call(*vmctl, "pool", "create", "-q", self.pool, str(self._spec("pool", "")), *slots)
            for name in (self.saved, self.reset):
                call(*vmctl, "up", "-q", str(self._spec(name, name)))
            self._virsh("save", self.saved, str(self.state))
            self._monitor(f"savevm {_KEPT}")
            yield Group("A guest for a job", LOADVM, METRICS, NOTES, subject=CLAIM), self._all()
        finally:
            for name in (self.saved, self.reset):
                self.site.remove(name)
                shutil.rmtree(self.site.home / "machines" / name, ignore_errors=True)
            with contextlib.suppress(BenchError):
                call(*vmctl, "pool", "delete", "-y", "--force", self.pool)

    def _spec(self, stem: str, name: str) -> object:
        path = self.directory / f"{stem}.yaml"
        named = f"name: {name}\nproject: {name}\n" if name else ""
        path.write_text(
            f"{named}image: tiny\nmemory: 128MiB\n{MODES[_MODE]}\n"
            "disks: [{name: data, size: 256MiB}]\n"
        )
        return path

    def _all(self) -> list[Contender]:
        pooled = ["run", "-q", "--pool", self.pool, "--", *_COMMAND]
        cold = ["run", "-q", str(self.directory / "pool.yaml"), "--", *_COMMAND]
        return [
            Contender(POOLED, lambda: self._run(pooled)),
            Contender(CLAIM, self._claim),
            Contender(COLD, lambda: self._run(cold)),
            Contender(RESTORE, self._restore),
            Contender(LOADVM, self._loadvm),
        ]

    def _settle(self) -> None:
        """Wait until no slot is being reset: a job that comes while others go has to wait."""
        end = time.monotonic() + PATIENCE
        while True:
            found = json.loads(
                self.site.call(*self.site.vmctl, "pool", "status", "--json", self.pool)
            )
            if all(slot["state"] == "ready" for slot in found["slots"]):
                return
            if time.monotonic() > end:
                raise BenchError(f"the pool is not ready: {found}")
            time.sleep(_POLL)

    def _run(self, words: Sequence[str]) -> dict[str, float]:
        self._settle()
        began = time.monotonic()
        with subprocess.Popen(
            [*self.site.vmctl, *words],
            env=self.site.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            first = child.stdout.read(1)
            came = time.monotonic()
            child.stdout.read()
            said = child.stderr.read().decode("utf-8", "replace")
        if child.returncode != 0 or not first:
            raise BenchError(f"{' '.join(words)} ended with {child.returncode}: {said}")
        return {METRICS[0]: came - began}

    def _claim(self) -> dict[str, float]:
        from vmctl.guest import remote
        from vmctl.guest.shell import Request
        from vmctl.runner.pooling import pool_client
        from vmctl.store.layout import Layout

        self._settle()
        came: list[float] = []
        streams = remote.Streams(
            stdin=None, stdout=lambda _: came.append(time.monotonic()), stderr=lambda _: None
        )
        began = time.monotonic()
        with pool_client.claimed(self.pool, layout=Layout(self.site.home)) as claim:
            remote.run(claim.access, Request(argv=_COMMAND), streams)
        return {METRICS[0]: came[0] - began}

    def _restore(self) -> dict[str, float]:
        began = time.monotonic()
        self._virsh("restore", str(self.state))
        took = time.monotonic() - began
        self._virsh("destroy", self.saved)
        return {METRICS[0]: took}

    def _loadvm(self) -> dict[str, float]:
        began = time.monotonic()
        self._monitor(f"loadvm {_KEPT}")
        return {METRICS[0]: time.monotonic() - began}

    def _monitor(self, command: str) -> None:
        said = self._virsh("qemu-monitor-command", "--hmp", self.reset, command).strip()
        if said:
            raise BenchError(f"{command}: {said}")

    def _virsh(self, *words: str) -> str:
        return self.site.call("virsh", "-c", self.site.uri, *words)
