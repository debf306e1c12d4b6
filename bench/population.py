"""Many defined machines, made with vmctl's own writers and without starting any."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from unittest import mock

from bench.site import Site


@contextlib.contextmanager
def defined(site: Site, count: int, stem: str = "many") -> Iterator[None]:
    """Have `count` machines defined for the length of the block, recorded as `up` records them.

    `stem` tells one such population from another.
    """
    if not count:
        yield
        return
    from vmctl.lifecycle import steps, workspace
    from vmctl.store import files
    from vmctl.store.layout import Layout

    stem = site.prefix + stem
    spec = site.home / "bench" / f"{stem}.yaml"
    spec.parent.mkdir(exist_ok=True)
    spec.write_text(
        f"project: {stem}\nvms:\n  {stem}:\n    count: {count}\n    image: tiny\n"
        "    mode: full\n    memory: 128MiB\n"
    )
    from vmctl.hypervisor import connection as connections

    layout = Layout(site.home)
    with mock.patch.dict("os.environ", site.env, clear=True):
        space = workspace.open_spec(spec, uri=site.uri, create_store=True)
    try:
        # Durability costs minutes here and is no part of what is measured.
        with (
            connections.opened(site.uri, layout) as connection,
            mock.patch("os.fsync", return_value=None),
        ):
            place = steps.Site(connection, layout)
            for machine in space.machines:
                files.make_directory(layout.machine(machine.name).directory)
                steps.define(place, machine)
                steps.remember(place, machine, str(spec), machine.uuid, running=False)
        yield
    finally:
        for machine in space.machines:
            site.remove(machine.name)
            _forget(layout.machine(machine.name).directory)


def _forget(directory: pathlib.Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for entry in directory.iterdir():
            entry.unlink()
        directory.rmdir()
