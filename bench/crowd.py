"""Many small machines at once: `vmctl up` of one spec against QEMU started by hand, all at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence

from bench import argv, boot, domains
from bench.domains import Place
from bench.rounds import Contender, Group
from bench.site import PATIENCE, BenchError, Site

METRICS = ("all first lines_seconds", "command returns_seconds")
VMCTL = "vmctl up"
PLAIN = "qemu-system-x86_64, all at once"
VIRSH = "virsh create, 4 at a time"
NOTES = {
    VMCTL: "one spec with `count:`; ends when each guest has said that it is ready",
    VIRSH: "a virsh for each machine, with what `vmctl render` prints",
    PLAIN: "the arguments that libvirt gave it for `vmctl up`; as the calling user",
}
_AT_ONCE = 4
_POLL = 0.02


class Crowd:
    """`count` machines of one kind; whoever starts them, their consoles are read here."""

    def __init__(self, site: Site, count: int, mode: str = "tcg-virtio") -> None:
        self.site = site
        self.count = count
        self.mode = mode
        self.stem = f"{site.prefix}crowd"
        self.directory = site.home / "bench" / "crowd"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.spec = self.directory / "vmctl.yaml"
        self.names = [f"{self.stem}-{number}" for number in range(1, count + 1)]
        self.spec.write_text(
            f"project: {self.stem}\nvms:\n  {self.stem}:\n    count: {count}\n    image: tiny\n"
            "    memory: 128MiB\n" + "".join(f"    {each}\n" for each in self._lines())
        )

    def _lines(self) -> list[str]:
        return boot.MODES[self.mode].splitlines()

    def measured(self) -> tuple[Group, list[Contender]]:
        """Return the group and everyone who starts the crowd."""
        self._learn()
        contenders = [
            Contender(VMCTL, self._vmctl),
            Contender(VIRSH, self._virsh),
            Contender(PLAIN, self._plain),
        ]
        title = f"{self.count} machines of the image tiny, mode {self.mode}, until all have booted"
        return Group(title, PLAIN, METRICS, NOTES, subject=VMCTL), contenders

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        """Have all of them running for the length of the block, as vmctl brought them up."""
        try:
            self.site.call(*self.site.vmctl, "up", "-q", str(self.spec))
            yield
        finally:
            self.clear()

    def clear(self) -> None:
        """Remove what vmctl made; not with vmctl, which may be what is broken."""
        for name in self.names:
            self.site.remove(name)
            shutil.rmtree(self._machine(name), ignore_errors=True)

    def _machine(self, name: str) -> pathlib.Path:
        return self.site.home / "machines" / name

    def _learn(self) -> None:
        """Find out what libvirt starts QEMU with, and what XML it is given."""
        one = boot.Boots(self.site, self.mode)
        self.command, self.rendered = one.qemu, one.rendered

    def _vmctl(self) -> dict[str, float]:
        logs = [self._machine(name) / "console.log" for name in self.names]
        try:
            with self.site.started([*self.site.vmctl, "up", "-q", str(self.spec)]) as (child, at):
                came = _all_came(logs, [child]) - at
                if child.wait(PATIENCE) != 0:
                    raise BenchError(f"ended with {child.returncode}")
                return {METRICS[0]: came, METRICS[1]: time.monotonic() - at}
        finally:
            self.clear()

    def _virsh(self) -> dict[str, float]:
        logs = self._consoles("virsh")
        files = []
        for name, log in zip(self.names, logs, strict=True):
            file = self.directory / f"{name}.xml"
            file.write_text(domains.renamed(self.rendered, Place(name=name, console=str(log))))
            files.append(str(file))

        def create(file: str) -> None:
            self.site.call("virsh", "-c", self.site.uri, "create", file)

        began = time.monotonic()
        try:
            with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(create, files))
            returned = time.monotonic() - began
            return {METRICS[0]: _all_came(logs, []) - began, METRICS[1]: returned}
        finally:
            for name in self.names:
                self.site.remove(name)

    def _plain(self) -> dict[str, float]:
        logs = self._consoles("plain")
        with contextlib.ExitStack() as stack:
            began = time.monotonic()
            children = [
                stack.enter_context(self.site.started(argv.standalone(self.command, str(log))))[0]
                for log in logs
            ]
            return {METRICS[0]: _all_came(logs, children, live=True) - began}

    def _consoles(self, who: str) -> list[pathlib.Path]:
        logs = [self.directory / f"{who}-{number}.log" for number in range(self.count)]
        for log in logs:
            log.unlink(missing_ok=True)
        return logs


def _all_came(
    logs: Sequence[pathlib.Path], children: Sequence[subprocess.Popen[bytes]], *, live: bool = False
) -> float:
    """Return the moment at which each guest had said its first line.

    `live`: the children are the guests, so that none may end; else only a failure counts.
    """
    left = list(logs)
    end = time.monotonic() + PATIENCE
    while True:
        left = [log for log in left if not _said(log)]
        if not left:
            return time.monotonic()
        if any(child.poll() is not None and (live or child.returncode) for child in children):
            raise BenchError("ended before all guests had booted")
        if time.monotonic() > end:
            raise BenchError(f"{len(left)} guests did not boot within {PATIENCE:.0f} s")
        time.sleep(_POLL)


def _said(log: pathlib.Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return boot.FIRST_LINE in log.read_bytes()
    return False
