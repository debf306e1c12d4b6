"""What figures from an emulated processor are, and what they are not. Pure."""

from __future__ import annotations

from vmctl.lab.results import Results

MARK = "emulated"
"""Key of a host's description: whether QEMU emulates its processor."""

OUTER = "outer"
"""Key of a host's description: the host that emulates it, where that is known."""

SHORT = "nested: under an emulated processor"


def applies(results: Results) -> bool:
    """Tell whether the figures were taken on an emulated processor."""
    return bool(results.host.get(MARK))


def sentences(results: Results) -> tuple[str, ...]:
    """Return what must be said above figures; nothing where they are of a real processor."""
    if not applies(results):
        return ()
    outer = results.host.get(OUTER)
    name = str(outer.get("name", "")) if isinstance(outer, dict) else ""
    where = f", on '{name}'" if name else ""
    return (
        f"Measured in a lab host, whose processor with its AMD-V is emulated by QEMU (TCG){where}.",
        (
            "What these ratios are: real KVM (kvm_amd) at work. Which operations exit, and what "
            "serves them, is as on hardware."
        ),
        (
            "What they are not: the cost of hardware. The host here is slow itself, and each exit "
            "is emulated too: do not quote them as the overhead of KVM."
        ),
    )
