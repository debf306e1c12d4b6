"""A store and names of the bench's own, programs run against the clock, and a clean end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import libvirt

PATIENCE = 300.0
"""Seconds after which whatever is awaited will not come; a guard only."""

_POLL = 0.002


class BenchError(Exception):
    """A contender did not do what it should; the message is for people."""


class Site:
    """Where the bench works. Names begin with `prefix`; everything that has it is removed."""

    def __init__(self, home: pathlib.Path, uri: str) -> None:
        self.home = home
        self.uri = uri
        self.prefix = f"vmctlbench-{os.getpid()}-"
        self.env = _environment(home, uri)
        beside = pathlib.Path(sys.executable).with_name("vmctl")
        self.vmctl = [str(beside)] if beside.exists() else [sys.executable, "-m", "vmctl"]
        self.connection = libvirt.open(uri)

    def call(self, *command: str) -> str:
        """Run a program whose time is not measured; raise BenchError where it fails."""
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode != 0:
            raise BenchError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def timed(self, *command: str) -> dict[str, float]:
        """Run a program to its end; return its seconds of wall clock and of CPU."""
        with open(os.devnull, "wb") as nowhere:
            began = time.monotonic()
            child = subprocess.Popen(command, env=self.env, stdout=nowhere, stderr=nowhere)
            _, status, usage = os.wait4(child.pid, 0)
            ended = time.monotonic()
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            raise BenchError(f"{' '.join(command)} ended with {child.returncode}")
        return {"wall_seconds": ended - began, "cpu_seconds": usage.ru_utime + usage.ru_stime}

    @contextlib.contextmanager
    def started(self, command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
        """Run a program for the length of the block; yields it and the moment before its exec."""
        with tempfile.TemporaryFile() as said:
            began = time.monotonic()
            child = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
            try:
                yield child, began
            except BenchError as problem:
                said.seek(0)
                text = said.read().decode("utf-8", "replace")
                raise BenchError(f"{' '.join(command)}: {problem}. It said: {text}") from None
            finally:
                if child.poll() is None:
                    child.terminate()
                    child.wait(PATIENCE)

    def remove(self, name: str) -> None:
        """Pull a domain's plug and forget it; fine where it is not there."""
        with contextlib.suppress(libvirt.libvirtError):
            domain = self.connection.lookupByName(name)
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
            with contextlib.suppress(libvirt.libvirtError):
                domain.undefine()

    def sweep(self) -> None:
        """Remove every domain of the bench."""
        for domain in self.connection.listAllDomains():
            if domain.name().startswith(self.prefix):
                self.remove(domain.name())


@contextlib.contextmanager
def opened(store: pathlib.Path | None, uri: str) -> Iterator[Site]:
    """Make a site for the length of the block; a store that is given stays, with its image."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    # SIGTERM ends the block as Ctrl-C does, so that what was made is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if store is None:
        home = pathlib.Path(tempfile.mkdtemp(prefix="vmctl-bench-", dir="/var/tmp"))
    else:
        home = store.absolute()
        home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o711)
    site = Site(home, uri)
    try:
        yield site
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            site.sweep()
            site.connection.close()
            if store is None:
                shutil.rmtree(home, ignore_errors=True)
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclasses.dataclass(frozen=True, slots=True)
class Arrival:
    """When the awaited text was there, and when the command had ended if that was before."""

    came: float
    returned: float | None


def await_text(
    log: pathlib.Path, text: bytes, child: subprocess.Popen[bytes], *, lives: bool
) -> Arrival:
    """Wait until `text` is in a file that may not be there yet.

    `lives`: the program is the guest itself, so that its end is the end of waiting; else only its
    failure is. Raises BenchError.
    """
    end = time.monotonic() + PATIENCE
    seen = -1
    returned: float | None = None
    while True:
        with contextlib.suppress(FileNotFoundError):
            size = log.stat().st_size
            if size != seen and text in log.read_bytes():
                return Arrival(time.monotonic(), returned)
            seen = size
        if returned is None and child.poll() is not None:
            returned = time.monotonic()
            if lives or child.returncode != 0:
                raise BenchError(f"ended with {child.returncode} before the guest's first line")
        if time.monotonic() > end:
            raise BenchError(f"the guest's first line did not come within {PATIENCE:.0f} s")
        time.sleep(_POLL)


def _environment(home: pathlib.Path, uri: str) -> dict[str, str]:
    """An ordinary user's environment: no Python switches, which would forbid .pyc files, say."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {
        **kept,
        "VMCTL_HOME": str(home),
        "LIBVIRT_DEFAULT_URI": uri,
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
