"""Differences between two machines, field by field, by identity and never by list position."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from typing import Any

from vmctl import sizes
from vmctl.machine.model import Disk, Forward, Image, Machine, Mount, Nic


class Effect(enum.StrEnum):
    """When a change takes hold."""

    NOW = "now"
    NEXT_START = "at the next start"
    RE_CREATION = "only in a new machine"


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs; values are as people read them."""

    path: str
    before: str
    after: str
    effect: Effect

    def __str__(self) -> str:
        return f"{self.path}: {self.before or 'nothing'} -> {self.after or 'nothing'}"


_NOW = {"forwards", "ready", "needs", "autostart", "project", "provision"}
_RE_CREATION = {"image", "firmware"}
_FIRST_BOOT = {"hostname", "user", "ssh_keys", "cloud_init", "user_data"}
"""What cloud-init carries out once in the life of a machine."""
_DIGESTS = {"ssh_keys", "cloud_init", "user_data", "provision"}
_SIZES = {"memory", "memory_max", "size"}
_DERIVED = {"host_cpu", "qemu_owner", "emulator", "console_log", "nvram", "seed"}
"""What vmctl works out by itself; a person did not write it and is not told of it."""

_FOLLOWING = {"base", "base_format"}
"""What of a disk follows from the image, which is told of already."""


def differences(before: Machine, after: Machine) -> tuple[Difference, ...]:
    """Return what differs between two machines, in the order of the model's fields."""
    return tuple(_fields(before, after))


def _fields(before: Machine, after: Machine) -> Iterator[Difference]:
    for field in dataclasses.fields(Machine):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old == new or not field.compare or field.name in _DERIVED:
            continue
        effect = _effect(field.name, after)
        if isinstance(old, tuple) and field.name in ("disks", "nics", "forwards", "mounts"):
            yield from _items(field.name, old, new, effect)
        elif field.name == "image":
            yield from _images(before, after, effect)
        else:
            yield Difference(field.name, _show(field.name, old), _show(field.name, new), effect)


def _effect(name: str, after: Machine) -> Effect:
    if name in _FIRST_BOOT:
        # Without cloud-init the name is on the kernel's command line.
        return Effect.RE_CREATION if after.seed else Effect.NEXT_START
    if name in _NOW:
        return Effect.NOW
    return Effect.RE_CREATION if name in _RE_CREATION else Effect.NEXT_START


def _images(before: Machine, after: Machine, effect: Effect) -> Iterator[Difference]:
    one, other = before.image, after.image
    if one is None or other is None or (one.name, one.digest) != (other.name, other.digest):
        yield Difference("image", _image(before), _image(after), effect)
    elif bool(one.kernel) != bool(other.kernel):
        yield Difference("boot", _boot(one), _boot(other), Effect.NEXT_START)
    else:
        yield Difference("image files", one.kernel or one.disk, other.kernel or other.disk, effect)


def _boot(image: Image) -> str:
    return "kernel" if image.kernel else "disk"


def _image(machine: Machine) -> str:
    image = machine.image
    return f"{image.name} ({image.digest[:12]})" if image is not None else ""


def _items(
    name: str, old: tuple[Any, ...], new: tuple[Any, ...], effect: Effect
) -> Iterator[Difference]:
    before = {_identity(item): item for item in old}
    after = {_identity(item): item for item in new}
    for key in [*before, *(key for key in after if key not in before)]:
        one, other = before.get(key), after.get(key)
        path = f"{name}[{key}]"
        if one is None or other is None:
            yield Difference(path, _present(one), _present(other), effect)
            continue
        for field in dataclasses.fields(one):
            was, will = getattr(one, field.name), getattr(other, field.name)
            if was != will and field.name not in _FOLLOWING:
                yield Difference(
                    f"{path}.{field.name}",
                    _show(field.name, was),
                    _show(field.name, will),
                    effect,
                )
    if before == after and list(before) != list(after):
        yield Difference(f"{name} order", ", ".join(before), ", ".join(after), effect)


def _identity(item: object) -> str:
    if isinstance(item, Disk):
        return item.name
    if isinstance(item, Nic):
        return item.mac
    if isinstance(item, Mount):
        return item.guest
    assert isinstance(item, Forward)
    return f"{item.protocol} {item.host_address}:{item.host}"


def _present(item: object) -> str:
    if item is None:
        return ""
    if isinstance(item, Disk):
        return sizes.text(item.size)
    if isinstance(item, Mount):
        return item.host
    return str(getattr(item, "kind", "") or getattr(item, "guest", ""))


def _show(name: str, value: object) -> str:
    if name in _DIGESTS and value:
        return f"content {str(value)[:12]}"
    if name in _SIZES and isinstance(value, int):
        return sizes.text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    if dataclasses.is_dataclass(value):
        return ", ".join(
            f"{field.name} {getattr(value, field.name)}" for field in dataclasses.fields(value)
        )
    return str(value)
