"""What the store remembers of a machine: enough for `ps`, and what was being done to it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from vmctl.store import files
from vmctl.store.layout import Layout, MachineFiles


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A machine as it was last defined; libvirt has the truth, this only adds ownership.

    `boot_id` is libvirt's number of the run that began when the console log was `boot_offset`
    bytes long; `ready` says that it was ready in this run. Memory in bytes. `user` is who logs in
    over ssh, `ssh_port` the port of 127.0.0.1 that leads to the guest's port 22 (0 for none),
    `seed` the digest of what the seed was made from.
    """

    name: str
    project: str
    uuid: str
    uri: str
    mode: str
    why: str = ""
    image: str = ""
    image_digest: str = ""
    login: str = ""
    cpus: int = 1
    memory: int = 0
    digest: str = ""
    spec: str = ""
    networks: tuple[str, ...] = ()
    boot_id: int = -1
    boot_offset: int = 0
    ready: bool = False
    user: str = ""
    ssh_port: int = 0
    seed: str = ""

    @property
    def run(self) -> str:
        """Tell this run of the machine from all others, as `access.run_of` does from libvirt."""
        return f"{self.uuid}-{self.boot_id}-{self.boot_offset}"


_FIELDS = frozenset(field.name for field in dataclasses.fields(Record))


def write(place: MachineFiles, record: Record) -> None:
    """Remember a machine."""
    files.write_json(place.record, dataclasses.asdict(record))


def read(place: MachineFiles) -> Record | None:
    """Return what is remembered, or None when there is nothing that can be read."""
    data = files.read_json(place.record)
    if data is None:
        return None
    try:
        data["networks"] = tuple(data.get("networks", ()))
        return Record(**{key: value for key, value in data.items() if key in _FIELDS})
    except TypeError:
        return None


def every(layout: Layout) -> Iterator[Record]:
    """Yield all machines that the store remembers, by name."""
    try:
        names = sorted(os.listdir(layout.machines))
    except OSError:
        return
    for name in names:
        record = read(layout.machine(name))
        if record is not None:
            yield record


def networks(layout: Layout, uri: str) -> Iterator[str]:
    """Yield the networks that machines want, those included that are only being made."""
    for record in every(layout):
        if record.uri == uri:
            yield from record.networks
    for path in layout.machines.glob("*/intent.json"):
        data = files.read_json(path) or {}
        if data.get("verb") == "up":
            yield from data.get("networks", ())


def begin(place: MachineFiles, verb: str, **facts: Any) -> None:
    """Record an intent before the first side effect; a kill from here on can be put right."""
    files.make_directory(place.directory)
    files.write_json(place.intent, {"verb": verb, **facts})


def intent(place: MachineFiles) -> dict[str, Any]:
    """Return the intent of a command that did not finish, or nothing."""
    return files.read_json(place.intent) or {}


def finish(place: MachineFiles) -> None:
    """Forget the intent: what was begun is done."""
    files.remove(place.intent)
