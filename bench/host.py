"""Names the host: figures mean nothing without it."""

from __future__ import annotations

import datetime as dt
import os
import pathlib
import platform
import subprocess

CPUINFO = pathlib.Path("/proc/cpuinfo")


def describe(uri: str) -> dict[str, str]:
    """Return what stands above the tables."""
    cores = os.cpu_count() or 1
    return {
        "CPU": f"{cpu_model(CPUINFO.read_text())}, {cores} {'core' if cores == 1 else 'cores'}",
        "KVM": kvm(),
        "kernel": platform.release(),
        "QEMU": _first_line("qemu-system-x86_64", "--version").removeprefix(
            "QEMU emulator version "
        ),
        "libvirt": _first_line("virsh", "-c", uri, "version", "--daemon").rpartition(" ")[2],
        "connection": uri,
        "Python": platform.python_version(),
        "vmctl": commit(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "load average before": load(),
    }


def kvm() -> str:
    """Return what vmctl's own probe says: a /dev/kvm that opens need not run a guest."""
    from vmctl.deadline import Deadline
    from vmctl.host import gather, verdict

    found = verdict.kvm_verdict(gather.gather(Deadline.after(30)))
    return "usable" if found.usable else f"not usable ({found.code})"


def load() -> str:
    """Return the load average of the last 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def cpu_model(cpuinfo: str) -> str:
    """Return the model name in a text like /proc/cpuinfo."""
    for row in cpuinfo.splitlines():
        key, _, value = row.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return "unknown"


def commit() -> str:
    """Return the commit that is measured, marked where files differ from it."""
    top = pathlib.Path(__file__).parents[1]
    number = _first_line("git", "-C", str(top), "rev-parse", "--short", "HEAD")
    changed = _first_line("git", "-C", str(top), "status", "--porcelain", "--", "vmctl")
    return f"{number or 'unknown'}{' and changes on top' if changed else ''}"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if command[0] == "virsh":
        lines = [line for line in lines if "daemon" in line]
    return lines[0] if lines else ""
