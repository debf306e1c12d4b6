"""`vmctl image`: base images, built and listed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vmctl import sizes
from vmctl.cli import context as contexts
from vmctl.cli import image_box, image_import, image_pull, image_store

if TYPE_CHECKING:
    from vmctl.lifecycle.schedule import Worker
    from vmctl.machine.model import Image
    from vmctl.store.layout import Layout

_BUILD_SECONDS = 1800.0
"""A build takes seconds; fetching the packages over a slow line may take longer."""


@click.group()
def image() -> None:
    """Build, list and inspect base images."""


image.add_command(image_pull.pull)


@image.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@contexts.options
def list_images(context: contexts.Context, as_json: bool) -> None:
    """List all images, those that could be built included."""
    from vmctl.images import inventory
    from vmctl.lifecycle import image_users
    from vmctl.store.layout import Layout
    from vmctl.ui import json_out, table

    layout = Layout.default()
    users = image_users.known(layout, context.uri)
    items = inventory.items(layout)
    if as_json:
        json_out.emit(
            [
                {
                    **json_out.plain(item),
                    "present": bool(item.digest),
                    "machines": list(users.of(item.digest)),
                }
                for item in items
            ]
        )
        return
    table.show(
        ("name", "state", "digest", "size", "age", "machines", "description"),
        [
            (
                item.name,
                item.kind,
                item.digest[:12],
                sizes.said(item.size) if item.digest else "",
                _age(item.made),
                len(users.of(item.digest)) or "",
                item.description,
            )
            for item in items
        ],
        right=("size", "age", "machines"),
    )


def _age(made: float) -> str:
    """Return how long ago something was made: 5 min, 3 h, 12 d."""
    if not made:
        return ""
    import time

    minutes = max(0, round((time.time() - made) / 60))
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 48 else f"{hours // 24} d"


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
def inspect(context: contexts.Context, name: str, as_json: bool) -> None:
    """Show what an image is made of, and check its files.

    NAME is a name, or the first digits (at least six) of a digest.
    """
    from vmctl import errors
    from vmctl.images import catalog, shelf
    from vmctl.lifecycle import image_users
    from vmctl.store.layout import Layout
    from vmctl.ui import json_out, table

    layout = Layout.default()
    found = _found(layout, name)
    damaged = shelf.damage(layout, found.digest) if found.present else []
    record = catalog.record(layout, found.name)
    if damaged:
        anew = f"vmctl image build {name} --force"
        if catalog.IMPORTED in record:
            anew = f"vmctl image import --replace {name} '{record[catalog.IMPORTED]['from']}'"
        raise errors.RefusedError(
            f"The image '{name}' is damaged: '{damaged[0]}' is not what was put there.",
            hint=f"Make it again: {anew}",
        )
    facts = catalog.facts(layout, found.digest) or catalog.promised(found.name)
    users = image_users.known(layout, context.uri)
    if as_json:
        imported = {catalog.IMPORTED: record.get(catalog.IMPORTED)}
        summary = _summary(layout, found) | {"machines": list(users.of(found.digest))}
        json_out.emit(facts | summary | imported)
        return
    rows = _described(layout, found, facts)
    rows += [(f"imported {key}", value) for key, value in _items(record, catalog.IMPORTED)]
    rows += [("used by", machine) for machine in users.of(found.digest)]
    table.show(("what", "value"), [row for row in rows if row[1]])


def _found(layout: Layout, name: str) -> Image:
    """Return an image by its name, or by the digits that its digest begins with."""
    from vmctl import errors
    from vmctl.images import catalog, inventory

    try:
        return catalog.find(layout, name)
    except errors.NotFoundError:
        matching = inventory.matching(layout, name)
        image = catalog.stored(layout, matching[0]) if len(matching) == 1 else None
        if image is None:
            raise
        return image


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
        ("state", "in the store, whole" if found.present else "not in the store"),
        ("digest", found.digest),
        ("directory", str(layout.image(found.digest)) if found.present else ""),
        ("source", str(facts.get("source", ""))),
        ("drivers", ", ".join(sorted(found.drivers))),
        ("disk", f"{found.disk_format}, {found.size} bytes" if found.size else ""),
        ("command line", found.cmdline),
        ("ready when", found.ready_when or found.ready_pattern),
        ("user", found.user),
        ("login", found.login),
        ("kernel", facts.get("kernel_release", "")),
    ]
    rows += [(f"file {name}", f"{each['size']} bytes") for name, each in _items(facts, "files")]
    rows += [(f"package {name}", version) for name, version in _items(facts, "packages")]
    rows += [(f"program {key}", str(value)) for key, value in _items(facts, "program")]
    rows += [(f"layer {number}", each) for number, each in enumerate(facts.get("layers", ()), 1)]
    return rows


def _items(facts: dict[str, Any], key: str) -> list[tuple[str, Any]]:
    return sorted((facts.get(key) or {}).items())


image.add_command(image_import.import_image)
image.add_command(image_box.box)
image.add_command(image_store.remove)
image.add_command(image_store.prune)
image.add_command(image_store.tree)
