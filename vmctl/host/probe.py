"""The real probe of KVM: runs code on it in a child process; the result is kept until reboot."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import sys
from typing import Any

import vmctl
from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.host import decode, reading
from vmctl.host.facts import DeviceNode, ProbeResult

CHILD = pathlib.Path(__file__).with_name("probe_child.py")
SECONDS = 10.0
"""Wall time the child gets; its own timers end each case long before."""


def run(
    device: str, deadline: Deadline, *, cases: tuple[str, ...] = (), program: pathlib.Path = CHILD
) -> ProbeResult:
    """Run the probe on `device` and return what it found; never raises for an odd host."""
    argv = [sys.executable, "-I", str(program), device, *cases]
    try:
        done = process.run(argv, deadline.within(SECONDS), check=False)
    except errors.WaitTimeoutError as problem:
        return ProbeResult(error=problem.message, timed_out=True)
    except (errors.VmctlError, OSError) as problem:
        return ProbeResult(error=str(problem))
    if done.status != 0:
        return ProbeResult(error=process.failure(done).message)
    try:
        result = decode.decode(ProbeResult, json.loads(done.text))
    except ValueError as problem:
        return ProbeResult(error=f"The probe printed nonsense: {problem}")
    return dataclasses.replace(result, cached=False)


def remembered(
    node: DeviceNode,
    deadline: Deadline,
    *,
    fresh: bool = False,
    directory: pathlib.Path | None = None,
) -> ProbeResult:
    """Return the kept result for this kernel, boot and device, else run the probe and keep it.

    `fresh` ignores what is kept. Only a probe that was carried out is kept: one that was killed or
    could not open the device says nothing about tomorrow.
    """
    place = cache_directory() if directory is None else directory
    name = _cache_name(node)
    if not fresh:
        kept = _read(place / name)
        if kept is not None:
            return kept
    result = run(node.path, deadline)
    if not result.error:
        with contextlib.suppress(OSError):
            _write(place, name, result)
    return result


def cache_directory() -> pathlib.Path:
    """Return where results are kept: $XDG_CACHE_HOME/vmctl, for root /var/cache/vmctl."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(chosen):
        return pathlib.Path(chosen, "vmctl")
    if os.geteuid() == 0 and os.access("/var/cache", os.W_OK):
        return pathlib.Path("/var/cache/vmctl")
    return pathlib.Path(os.path.expanduser("~/.cache/vmctl"))


def _cache_name(node: DeviceNode) -> str:
    boot = reading.line(pathlib.Path("/proc/sys/kernel/random/boot_id"))
    key = (os.uname().release, boot, node.path, node.ctime_ns, node.device)
    parts = (*key, os.geteuid(), vmctl.__version__)
    return f"kvm-probe-{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}.json"


def _read(path: pathlib.Path) -> ProbeResult | None:
    """Return the kept result; None where there is none, it is damaged, or it is another user's."""
    try:
        status = path.lstat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return None
        result = decode.decode(ProbeResult, json.loads(reading.raw(path)))
    except (OSError, ValueError):
        return None
    if result.error or not result.cases:
        return None
    return dataclasses.replace(result, cached=True)


def _write(directory: pathlib.Path, name: str, result: ProbeResult) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    data: dict[str, Any] = dataclasses.asdict(result)
    draft = directory / f".{name}-{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(data, stream)
        os.replace(draft, directory / name)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    for old in directory.glob("kvm-probe-*.json"):
        if old.name != name:
            with contextlib.suppress(OSError):
                old.unlink()
