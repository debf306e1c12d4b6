"""A machine's own keys, and the seed that brings them and the spec's wishes into the guest."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import pathlib

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.images import seed
from vmctl.machine.model import Machine
from vmctl.machine.payload import Payload
from vmctl.store import files, records
from vmctl.store.layout import Layout, MachineFiles

_KEY_SECONDS = 60.0


def prepare(layout: Layout, machine: Machine) -> None:
    """Make what must be there before the domain is defined: the keys, and the spec's wishes.

    Keys that are there stay. Raises HostError where they cannot be made.
    """
    place = layout.machine(machine.name)
    if machine.payload is not None and machine.payload != Payload():
        # In the order of the spec: the seed that is made of it later is the same to the byte.
        files.write(place.payload, json.dumps(machine.payload.as_dict()).encode())
    elif machine.payload is not None:
        files.remove(place.payload)
    if machine.seed or (machine.user and process.find("ssh-keygen")):
        _make_key(place.ssh_key, f"vmctl@{machine.name}")
    if machine.seed:
        _make_key(place.host_key, f"root@{machine.hostname}")


def _make_key(path: pathlib.Path, comment: str) -> None:
    """Make a pair of keys unless it is there; the private half appears last."""
    if path.exists() and _public(path).exists():
        return
    draft = files.temporary(path)
    process.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", draft],
        Deadline.after(_KEY_SECONDS),
    )
    files.publish(_public(draft), _public(path))
    files.publish(draft, path)


def _public(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.pub")


def kernel_key(place: MachineFiles) -> str:
    """Return the public key as the kernel's command line carries it; empty where there is none."""
    try:
        return base64.b64encode(_public(place.ssh_key).read_bytes()).decode()
    except FileNotFoundError:
        return ""


def before_start(layout: Layout, machine: Machine) -> None:
    """Put everything in place that a start needs: the seed, and what ssh takes for the host key.

    `machine` is the one that is defined. What is there already and right is left alone; a seed
    that was lost is made again. Raises ConflictError where that needs the spec.
    """
    place = layout.machine(machine.name)
    if machine.seed:
        _ensure_seed(layout, machine)
    if machine.user:
        _write_if_new(place.known_hosts, _known_hosts(machine, place))


def _ensure_seed(layout: Layout, machine: Machine) -> None:
    place = layout.machine(machine.name)
    path = pathlib.Path(machine.seed)
    record = records.read(place)
    wishes = payload(place, machine)
    if wishes is None:
        if path.exists():
            return
        raise errors.ConflictError(
            f"The seed of machine '{machine.name}' is gone, and so is what it was made from "
            f"('{place.payload}').",
            hint="Make it again from the spec: vmctl up SPEC",
        )
    prepare(layout, machine)
    content = seed.content(machine, wishes, _keys(place))
    if record is not None and record.seed == content.digest and path.exists():
        return
    files.write(path, seed.iso(content.files()))
    if machine.qemu_owner:
        uid, gid = (int(part) for part in machine.qemu_owner.replace("+", "").split(":"))
        os.chown(path, uid, gid, follow_symlinks=False)
    if record is not None:
        records.write(place, dataclasses.replace(record, seed=content.digest))


def payload(place: MachineFiles, machine: Machine) -> Payload | None:
    """Return the spec's wishes for a machine's guest, or None where the store lost them."""
    if machine.payload is not None:
        return machine.payload
    data = files.read_json(place.payload)
    if data is not None:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return Payload.from_dict(data)
    wished = machine.ssh_keys or machine.cloud_init or machine.user_data or machine.provision
    return None if wished else Payload()


def _keys(place: MachineFiles) -> seed.Keys:
    return seed.Keys(
        login=_public(place.ssh_key).read_text().strip(),
        host_private=place.host_key.read_text(),
        host_public=_public(place.host_key).read_text().strip(),
    )


def _known_hosts(machine: Machine, place: MachineFiles) -> str:
    """Return the line for the guest's host key; nothing where the guest makes its own anew."""
    if not machine.seed:
        return ""
    kind, key, *_ = _public(place.host_key).read_text().split()
    return f"vmctl-{machine.name} {kind} {key}\n"


def _write_if_new(path: pathlib.Path, text: str) -> None:
    with contextlib.suppress(OSError):
        if path.read_text() == text:
            return
    files.write(path, text.encode())
