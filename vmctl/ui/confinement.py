"""Shows what holds a machine: its limits, its control groups, its namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmctl import sizes
from vmctl.ui import escape

if TYPE_CHECKING:
    from vmctl.lifecycle.holding import Held, Holding

_SIZES = ("memory_limit",)
_RATES = ("disk_read_rate", "disk_write_rate", "net_rate")


def lines(holding: Holding) -> Iterator[tuple[str, str, bool]]:
    """Yield a label, a text and whether all is as declared."""
    for held in holding.limits:
        yield "limit", escape.one_line(_limit(held)), held.holds
    confined = holding.confinement
    if confined is None:
        return
    places: dict[str, list[str]] = {}
    for controller, path in sorted(confined.groups.items()):
        places.setdefault(path, []).append(controller)
    for path, controllers in places.items():
        if path != "/" or len(places) == 1:
            text = f"{confined.version}: {path} ({', '.join(controllers)})"
            yield "cgroup", escape.one_line(text), True
    own = [name for name, its_own in confined.namespaces.items() if its_own]
    shared = [name for name, its_own in confined.namespaces.items() if its_own is False]
    if own or shared:
        text = f"its own: {', '.join(own) or 'none'}; the host's: {', '.join(shared) or 'none'}"
        yield "namespaces", text, True


def _limit(held: Held) -> str:
    text = f"{held.key} {_shown(held.key, held.declared)}"
    if not held.where:
        return text
    if held.libvirt != held.declared:
        text += f", libvirt has {_shown(held.key, held.libvirt)}"
    if held.enforced not in (None, held.declared):
        text += f", it is {_shown(held.key, held.enforced)}"
    return f"{text} ({held.where})"


def _shown(key: str, value: int | str | None) -> str:
    if value is None:
        return "not set"
    if key == "cpu_quota":
        return f"{value}%"
    if key in _SIZES and isinstance(value, int):
        return sizes.text(value)
    if key in _RATES and isinstance(value, int):
        return f"{sizes.text(value)}/s"
    return str(value)
