"""Differences between two machines, field by field, by identity and never by list position."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

from vmctl import sizes
from vmctl.machine import effects
from vmctl.machine.effects import Effect
from vmctl.machine.limits import SPEC_KEYS, Limits
from vmctl.machine.model import Disk, Forward, Image, Machine, Mount, Nic


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs; values are as people read them.

    `field` is the machine's, `item` the name of a disk or a card in it, `part` what differs of
    that; `effect` is when the change would take hold if `before` is what runs.
    """

    field: str
    before: str
    after: str
    effect: Effect
    item: str = ""
    part: str = ""

    @property
    def path(self) -> str:
        """The place in a machine, as people read it."""
        item = f"[{self.item}]" if self.item else ""
        if self.field == "limits":
            return f"resources.{SPEC_KEYS[self.part]}"
        return f"{self.field}{item}{f'.{self.part}' if self.part else ''}"

    @property
    def grows(self) -> bool:
        """True for a disk that becomes larger."""
        resized = self.field == "disks" and self.part == "size"
        return resized and self.effect is not Effect.RE_CREATION

    def __str__(self) -> str:
        return f"{self.path}: {self.before or 'nothing'} -> {self.after or 'nothing'}"

    def as_dict(self) -> dict[str, str]:
        """Return plain data, for JSON."""
        return {
            "path": self.path,
            "from": self.before,
            "to": self.after,
            "effect": self.effect.value,
        }


_ITEMS = ("disks", "nics", "forwards", "mounts")
_DIGESTS = {"ssh_keys", "cloud_init", "user_data", "provision"}
_SIZES = {"memory", "memory_max", "size", "disk_read_rate", "disk_write_rate", "net_rate"}
_DERIVED = {"host_cpu", "qemu_owner", "emulator", "console_log", "nvram", "seed"}
"""What vmctl works out by itself; a person did not write it and is not told of it."""

_UNITS = {"cpu_shares": " shares", "cpu_quota": "%"}

_FOLLOWING = {"base", "base_format"}
"""What of a disk follows from the image, which is told of already."""


def differences(before: Machine, after: Machine) -> tuple[Difference, ...]:
    """Return what differs between two machines, in the order of the model's fields."""
    return tuple(_fields(before, after))


def _fields(before: Machine, after: Machine) -> Iterator[Difference]:
    for field in dataclasses.fields(Machine):
        name = field.name
        old, new = getattr(before, name), getattr(after, name)
        if old == new or not field.compare or name in _DERIVED:
            continue
        if name in _ITEMS:
            yield from _items(name, before, after)
        elif name == "image":
            yield from _images(before, after)
        elif name == "cdroms":
            yield from _cdroms(before, after)
        elif name == "limits":
            yield from _limits(old, new)
        else:
            effect = effects.of_field(name, before, after)
            yield Difference(name, _show(name, old), _show(name, new), effect)


def _images(before: Machine, after: Machine) -> Iterator[Difference]:
    one, other = before.image, after.image
    if one is None or other is None or (one.name, one.digest) != (other.name, other.digest):
        yield Difference("image", _image(before), _image(after), Effect.RE_CREATION)
    elif bool(one.kernel) != bool(other.kernel):
        yield Difference("boot", _boot(one), _boot(other), Effect.NEXT_START)
    else:
        was, will = one.kernel or one.disk, other.kernel or other.disk
        yield Difference("image files", was, will, Effect.RE_CREATION)


def _boot(image: Image) -> str:
    return "kernel" if image.kernel else "disk"


def _image(machine: Machine) -> str:
    image = machine.image
    return f"{image.name} ({image.digest[:12]})" if image is not None else ""


def _limits(before: Limits, after: Limits) -> Iterator[Difference]:
    for field in dataclasses.fields(Limits):
        was, will = getattr(before, field.name), getattr(after, field.name)
        if was != will:
            effect = effects.of_limit(field.name, will)
            old, new = (_show(field.name, each) if each else "" for each in (was, will))
            yield Difference("limits", old, new, effect, part=field.name)


def _items(name: str, before: Machine, after: Machine) -> Iterator[Difference]:
    old = {identity(item): item for item in getattr(before, name)}
    new = {identity(item): item for item in getattr(after, name)}
    for key in [*old, *(key for key in new if key not in old)]:
        one, other = old.get(key), new.get(key)
        if one is None or other is None:
            item = one if other is None else other
            effect = effects.of_item(name, item, before, after)
            yield Difference(name, _present(one), _present(other), effect, item=key)
            continue
        for field in dataclasses.fields(one):
            was, will = getattr(one, field.name), getattr(other, field.name)
            if was != will and field.name not in _FOLLOWING:
                yield Difference(
                    name,
                    _show(field.name, was),
                    _show(field.name, will),
                    effects.of_part(name, field.name, (was, will), before, after),
                    item=key,
                    part=field.name,
                )
    if old == new and list(old) != list(new):
        yield Difference(f"{name} order", ", ".join(old), ", ".join(new), Effect.NEXT_START)


def _cdroms(before: Machine, after: Machine) -> Iterator[Difference]:
    """Compare what is in the drives: a medium that stays stays where it is.

    New ones go into drives whose medium goes, and into empty ones.
    """
    gone = sorted((Counter(before.cdroms) - Counter(after.cdroms)).elements(), reverse=True)
    come = [*(Counter(after.cdroms) - Counter(before.cdroms)).elements()]
    swapped = Effect.NOW if effects.same_hardware(before, after) else Effect.NEXT_START
    for index in range(max(len(gone), len(come))):
        was = gone[index] if index < len(gone) else ""
        will = come[index] if index < len(come) else ""
        effect = swapped if index < len(gone) else Effect.NEXT_START
        if was or will:
            yield Difference("cdroms", was, will, effect, item=will or was)
    if len(before.cdroms) != len(after.cdroms):
        was, will = (str(len(each.cdroms)) for each in (before, after))
        yield Difference("cdrom drives", was, will, Effect.NEXT_START)
    elif not gone and not come:
        was, will = (", ".join(each.cdroms) for each in (before, after))
        yield Difference("cdroms order", was, will, Effect.NEXT_START)


def identity(item: object) -> str:
    """Return what a disk, a card, a mount or a forwarded port is known by."""
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
    if name in _UNITS:
        return f"{value}{_UNITS[name]}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    if dataclasses.is_dataclass(value):
        return ", ".join(
            f"{field.name} {getattr(value, field.name)}" for field in dataclasses.fields(value)
        )
    return str(value)


def carried(running: Machine, difference: Difference, wanted: Machine) -> Machine:
    """Return the running machine with one difference to the wanted one gone."""
    name = difference.field
    if not difference.item:
        if name == "limits":
            part = {difference.part: getattr(wanted.limits, difference.part)}
            return dataclasses.replace(running, limits=dataclasses.replace(running.limits, **part))
        return dataclasses.replace(running, **{name: getattr(wanted, name)})
    if name == "cdroms":
        left = Counter(running.cdroms) - Counter([difference.before])
        return dataclasses.replace(running, cdroms=(*left.elements(), difference.after))
    items = {identity(item): item for item in getattr(running, name)}
    new = {identity(item): item for item in getattr(wanted, name)}.get(difference.item)
    if new is None:
        items.pop(difference.item, None)
    elif difference.part and difference.item in items and name != "nics":
        part = {difference.part: getattr(new, difference.part)}
        items[difference.item] = dataclasses.replace(items[difference.item], **part)
    else:
        items[difference.item] = new
    changed: Any = tuple(items.values())
    return dataclasses.replace(running, **{name: changed})
