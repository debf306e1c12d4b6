"""What the processor, its registers and the kernel's log say about virtualization."""

from __future__ import annotations

import os
import pathlib
import re

from vmctl.host import reading
from vmctl.host.facts import Cpu, Msr

FLAGS = frozenset(
    ("vmx", "svm", "ept", "npt", "vpid", "hypervisor", "lm", "constant_tsc", "nonstop_tsc", "vgif")
)
"""The flags of /proc/cpuinfo that are kept; Linux lists ept and vpid also under 'vmx flags'."""

_SUBJECTS = ("kvm", "vmx", "svm", "hyp mode")
_COMPLAINT = re.compile(
    "disabled|not supported|not enabled|not available|no hardware support|bios|cannot|failed"
)
_DISABLED = re.compile(
    r"disabled \(?by (?:the )?bios|not enabled \(by bios\)|svm disabled|outside txt\) disabled",
    re.IGNORECASE,
)
_LOG_LINES = 10
_IA32_FEATURE_CONTROL = 0x3A
_VM_CR = 0xC0010114


def cpu(root: pathlib.Path) -> Cpu:
    """Return what /proc/cpuinfo says; the flags are those of the first processor."""
    first: dict[str, str] = {}
    count = 0
    for row in reading.text(root / "proc/cpuinfo").splitlines():
        key, _, value = row.partition(":")
        if key.strip() == "processor":
            count += 1
        first.setdefault(key.strip(), value.strip())
    flags = set(f"{first.get('flags', '')} {first.get('vmx flags', '')}".split())
    return Cpu(
        vendor=first.get("vendor_id", first.get("CPU implementer", "")),
        model=first.get("model name", ""),
        flags=tuple(sorted(flags & FLAGS)),
        count=count or os.cpu_count() or 0,
    )


def msr(root: pathlib.Path, *, intel: bool) -> Msr:
    """Return the registers that firmware sets; empty without root and the module msr."""
    data = reading.word(root / "dev/cpu/0/msr", _IA32_FEATURE_CONTROL if intel else _VM_CR, 8)
    if not data:
        return Msr()
    value = int.from_bytes(data, "little")
    return Msr(feature_control=value) if intel else Msr(vm_cr=value)


def telling_log(root: pathlib.Path) -> tuple[str, ...]:
    """Return the lines of the kernel's log that say why there is no virtualization."""
    lines = [line for line in reading.kernel_log(root / "dev/kmsg") if _tells(line.lower())]
    return tuple(dict.fromkeys(lines))[:_LOG_LINES]


def _tells(line: str) -> bool:
    return any(subject in line for subject in _SUBJECTS) and bool(_COMPLAINT.search(line))


def says_disabled(line: str) -> bool:
    """Tell whether a line of the kernel's log blames firmware (facts: Linux 5.6, 6.2, 6.7)."""
    return bool(_DISABLED.search(line))
