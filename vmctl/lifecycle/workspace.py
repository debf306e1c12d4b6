"""Brings together what a spec needs to become machines: host, store, images."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.host import gather, nesting, verdict
from vmctl.host.facts import HostFacts
from vmctl.hypervisor import connection as connections
from vmctl.images import catalog, local
from vmctl.lifecycle import directories, holding
from vmctl.machine import resolve
from vmctl.machine.model import DiskFormat, Image, Machine
from vmctl.spec import load
from vmctl.spec.load import Document
from vmctl.spec.model import ImageSpec
from vmctl.spec.problems import SpecError
from vmctl.store import home, storage
from vmctl.store.layout import Layout

_FACTS_SECONDS = 20.0
_UNMADE_STORE = "0" * 16
"""Stands for the id of a store that does not exist yet, so that `render` changes nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Workspace:
    """A spec and the machines it means on this host."""

    document: Document
    machines: tuple[Machine, ...]
    layout: Layout
    uri: str


def open_spec(
    path: pathlib.Path,
    *,
    uri: str | None = None,
    sets: Sequence[str] = (),
    allow_outside: bool = False,
    create_store: bool = False,
) -> Workspace:
    """Read a spec and resolve it for this host; only `create_store` changes anything on disk.

    Raises SpecError with all problems, HostError for what the host lacks.
    """
    document = load.load(path, sets, allow_outside=allow_outside)
    layout = Layout.default()
    chosen = uri or connections.default_uri()
    around = surroundings(layout, chosen, create_store=create_store)
    return Workspace(document, resolve.resolve(document, around), layout, chosen)


def require_surroundings(space: Workspace) -> None:
    """Raise SpecError for every file that is not there, HostError for a missing bridge.

    Raises HostError for a limit that would not hold as well.
    """
    for machine in space.machines:
        for nic in machine.nics:
            if nic.bridge and not os.path.isdir(f"/sys/class/net/{nic.bridge}/bridge"):
                raise errors.HostError(
                    f"Machine '{machine.name}' wants bridge '{nic.bridge}', which this host does "
                    "not have.",
                    hint=f"See what there is: ip link show type bridge; make one: "
                    f"sudo ip link add {nic.bridge} type bridge",
                )
    holding.require(space.machines, os.fspath(space.layout.home))
    missing = [
        space.document.problem(machine.name, ("cdroms", index), f"there is no file '{file}'")
        for machine in space.machines
        for index, file in enumerate(machine.cdroms)
        if not os.path.isfile(file)
    ]
    missing += [
        space.document.problem(spec.name, ("mounts", index, "host"), absence)
        for spec in space.document.machines
        for index, mount in enumerate(spec.mounts)
        if (absence := directories.absence(mount.host))
    ]
    if missing:
        raise SpecError(missing)


def surroundings(layout: Layout, uri: str, *, create_store: bool) -> resolve.Surroundings:
    """Return what machines depend on besides their spec."""
    session = uri.startswith(connections.SESSION)
    system = not session
    facts = gather.gather(Deadline.after(_FACTS_SECONDS))
    store_id = home.opened(layout) if create_store else home.store_id(layout)
    if system and os.geteuid() != 0:
        home.refuse_unreachable(layout)
    return resolve.Surroundings(
        facts=facts,
        kvm=verdict.kvm_verdict(facts, system=system),
        nested=nesting.nested_verdict(facts, system=system),
        layout=layout,
        storage=storage.examine(layout.home),
        store_id=store_id or _UNMADE_STORE,
        images=functools.cache(functools.partial(image, layout)),
        session=session,
        qemu_owner=_qemu_owner(facts, session=session),
    )


def image(layout: Layout, wanted: ImageSpec) -> Image:
    """Return the image that a spec means. Raises NotFoundError, RefusedError."""
    if wanted.format is None:
        return catalog.find(layout, wanted.name)
    format_ = DiskFormat(wanted.format.value)
    if wanted.url:
        # Rare, and dear to import.
        from vmctl.images import pull

        return pull.find_address(layout, wanted.url, wanted.sha256, format_)
    return local.find(layout, wanted.path, format_)


def _qemu_owner(facts: HostFacts, *, session: bool) -> str:
    """Return QEMU's own account where vmctl, as root, gives it the files itself."""
    account = facts.qemu_user
    if session or os.geteuid() != 0 or account is None:
        return ""
    return f"+{account.uid}:+{account.gid}"
