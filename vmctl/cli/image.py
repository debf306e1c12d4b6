"""`vmctl image`: base images, built and listed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vmctl.cli import context as contexts

if TYPE_CHECKING:
    from vmctl.lifecycle.schedule import Worker
    from vmctl.machine.model import Image
    from vmctl.store.layout import Layout

_BUILD_SECONDS = 1800.0
"""A build takes seconds; fetching the packages over a slow line may take longer."""


@click.group()
def image() -> None:
    """Build, list and inspect base images."""


@image.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def list_images(context: contexts.Context, as_json: bool) -> None:  # noqa: ARG001
    """List all images, built or not."""
    from vmctl.images import catalog
    from vmctl.store.layout import Layout

    layout = Layout.default()
    rows = [_summary(layout, catalog.find(layout, name)) for name in catalog.names()]
    if as_json:
        from vmctl.ui import json_out

        json_out.emit(rows)
        return
    from vmctl.ui import progress, table

    table.show(
        ("name", "state", "digest", "size", "description"),
        [
            (
                row["name"],
                "built" if row["present"] else "not built",
                row["digest"][:12],
                progress.size(row["size"]) if row["present"] else "",
                row["description"],
            )
            for row in rows
        ],
        right=("size",),
    )


@image.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Build it even if nothing has changed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def build(context: contexts.Context, name: str, force: bool, as_json: bool) -> None:
    """Build an image from its recipe, or bring it up to date.

    Nothing is installed on the host and root is not needed. Machines that exist keep the image
    that they were made with.
    """
    from vmctl.deadline import Deadline
    from vmctl.images import build as building
    from vmctl.images import recipes
    from vmctl.lifecycle import schedule
    from vmctl.store.layout import Layout
    from vmctl.ui import progress

    recipes.path(name)
    layout = Layout.default()
    results: list[tuple[Image, bool]] = []

    def work(_: str, worker: Worker) -> None:
        with worker.step("build image") as tell:

            def told(what: str, done: int, total: int) -> None:
                tell(what, done, total)

            deadline = Deadline.after(_BUILD_SECONDS)
            results.append(building.renew(layout, name, deadline, told, force=force))
            tell("built" if results[0][1] else "nothing has changed")

    progress.follow(schedule.carry_out([name], {}, work), quiet=context.quiet)
    ((made, built),) = results
    if as_json:
        from vmctl.ui import json_out

        json_out.emit(_summary(layout, made) | {"built": built})


@image.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def inspect(context: contexts.Context, name: str, as_json: bool) -> None:  # noqa: ARG001
    """Show what an image is made from, and compare its files with their recorded digests."""
    from vmctl import errors
    from vmctl.images import build as building
    from vmctl.images import catalog
    from vmctl.store.layout import Layout

    layout = Layout.default()
    found = catalog.find(layout, name)
    damaged = building.damage(layout, found.digest) if found.present else []
    if damaged:
        raise errors.RefusedError(
            f"The image '{name}' is damaged: '{damaged[0]}' is not what was built.",
            hint=f"Build it again: vmctl image build {name} --force",
        )
    facts = catalog.facts(layout, found.digest) or catalog.promised(name)
    if as_json:
        from vmctl.ui import json_out

        json_out.emit(_summary(layout, found) | facts)
        return
    from vmctl.ui import table

    table.show(("what", "value"), _described(layout, found, facts))


def _summary(layout: Layout, found: Image) -> dict[str, Any]:
    from vmctl.images import catalog

    facts = catalog.facts(layout, found.digest) or catalog.promised(found.name)
    return {
        "name": found.name,
        "description": facts.get("description", ""),
        "present": found.present,
        "digest": found.digest,
        "size": sum(each.get("size", 0) for each in facts.get("files", {}).values()),
        "drivers": sorted(found.drivers),
    }


def _described(layout: Layout, found: Image, facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("name", found.name),
        ("state", "built" if found.present else "not built"),
        ("digest", found.digest),
        ("directory", str(layout.image(found.digest)) if found.present else ""),
        ("drivers", ", ".join(sorted(found.drivers))),
        ("command line", found.cmdline),
        ("ready when", found.ready_pattern),
        ("login", found.login),
        ("kernel", facts.get("kernel_release", "")),
    ]
    rows += [(f"file {name}", f"{each['size']} bytes") for name, each in _items(facts, "files")]
    rows += [(f"package {name}", version) for name, version in _items(facts, "packages")]
    return rows


def _items(facts: dict[str, Any], key: str) -> list[tuple[str, Any]]:
    return sorted(facts.get(key, {}).items())
