"""What the store remembers of a machine: enough for `ps`, and what was being done to it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from vmctl import errors
from vmctl.store import files
from vmctl.store.layout import Layout, MachineFiles


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A machine as it was last defined; libvirt has the truth, this only adds ownership.

    `boot_id` is libvirt's number of the run that began when the console log was `boot_offset`
    bytes long; `ready` says that it was ready in this run. Memory in bytes. `user` is who logs in
    over ssh, `ssh_port` the port of 127.0.0.1 that leads to the guest's port 22 (0 for none),
    `seed` the digest of what the seed was made from. `kept` names disks that the machine no longer
    has and that outlive it. `adopted` says that others made the domain and its disks, `transient`
    that it is a run's, and goes with it.
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
    kept: tuple[str, ...] = ()
    adopted: bool = False
    transient: bool = False

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
    return _record(files.read_json(place.record))


def _record(data: dict[str, Any] | None) -> Record | None:
    if data is None:
        return None
    try:
        for key in ("networks", "kept"):
            data[key] = tuple(data.get(key, ()))
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
    """Yield the networks that machines want, those included that are being made or let go of."""
    for record in every(layout):
        if record.uri == uri:
            yield from record.networks
    for path in layout.machines.glob("*/released.json"):
        gone = released(layout.machine(path.parent.name))
        if gone is not None and gone.record.uri == uri:
            yield from gone.record.networks
    for path in layout.machines.glob("*/intent.json"):
        data = files.read_json(path) or {}
        if data.get("verb") == "up":
            yield from data.get("networks", ())


@dataclasses.dataclass(frozen=True, slots=True)
class Released:
    """A machine that vmctl let go of: its record, and our element of the domain it was taken from.

    `live` is the element of the run `boot_id`, empty where it did not run.
    """

    record: Record
    metadata: str
    live: str = ""
    boot_id: int = -1


def release(place: MachineFiles, gone: Released) -> None:
    """Note what is let go of, while its record is still there."""
    data = {"metadata": gone.metadata, "live": gone.live, "boot": gone.boot_id}
    files.write_json(place.released, {**dataclasses.asdict(gone.record), **data})


def released(place: MachineFiles) -> Released | None:
    """Return what was let go of under this name; None where nothing was, or it came back."""
    data = files.read_json(place.released)
    record = _record(data)
    if data is None or record is None or place.record.exists():
        return None
    return Released(
        record=record,
        metadata=str(data.get("metadata", "")),
        live=str(data.get("live", "")),
        boot_id=int(data.get("boot", -1)),
    )


def begin(place: MachineFiles, verb: str, **facts: Any) -> None:
    """Record an intent before the first side effect; a kill from here on can be put right.

    Raises ConflictError for a new machine where files of one lie that vmctl let go of.
    """
    if verb == "up" and released(place) is not None:
        name = place.directory.name
        raise errors.ConflictError(
            f"The store has the files of a machine '{name}' that was released.",
            hint=f"Get it back: vmctl adopt {name} - or, if nothing uses them any more, clear them:"
            f" vmctl gc --data {name}",
        )
    files.make_directory(place.directory)
    files.write_json(place.intent, {"verb": verb, **facts})


def intent(place: MachineFiles) -> dict[str, Any]:
    """Return the intent of a command that did not finish, or nothing."""
    return files.read_json(place.intent) or {}


def finish(place: MachineFiles) -> None:
    """Forget the intent: what was begun is done."""
    files.remove(place.intent)
