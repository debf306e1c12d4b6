"""Removes images from a store while others are about to use them."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from vmctl import errors
from vmctl.hypervisor import connection as connections
from vmctl.hypervisor.connection import Connection
from vmctl.images import catalog, chain, inventory, qcow2
from vmctl.lifecycle import image_removal, image_tree, image_users, steps
from vmctl.lifecycle.image_removal import What
from vmctl.lifecycle.steps import Site
from vmctl.machine.model import Chipset, Disk, DiskFormat, Machine, Mode, Ready
from vmctl.store import files, home, locks, records
from vmctl.store.layout import Layout

OLD, NEW = "ab" * 32, "cd" * 32


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    layout = Layout(tmp_path / "store")
    home.opened(layout)
    return layout


@pytest.fixture
def connection(layout: Layout) -> Iterator[Connection]:
    """Libvirt's in-process test driver, which knows one domain that is not ours."""
    with connections.opened("test:///default", layout) as opened:
        yield opened


def put(layout: Layout, digest: str, name: str = "") -> pathlib.Path:
    """Put an imported disk into the store."""
    directory = layout.image(digest)
    directory.mkdir()
    disk = directory / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "16M"], check=True, timeout=60)
    facts = {"disk_format": "qcow2", "size": 16 << 20, "files": {disk.name: {}}}
    files.write_json(directory / catalog.FACTS, facts)
    if name:
        record = {"digest": digest, catalog.IMPORTED: {"from": "/x"}}
        files.write_json(layout.image_names / f"{name}.json", record)
    return disk


def overlay(layout: Layout, machine: str, base: pathlib.Path, name: str = "root") -> pathlib.Path:
    place = layout.machine(machine)
    files.make_directory(place.directory)
    qcow2.create_overlay(place.disk(name), base, DiskFormat.QCOW2, 0)
    return place.disk(name)


def remove(layout: Layout, connection: Connection, word: str) -> int:
    (chosen,) = image_removal.chosen(layout, [word])
    return image_removal.remove(layout, connection, chosen)


def drafts(layout: Layout) -> list[str]:
    return [path.name for path in layout.images.iterdir() if path.name.startswith(".")]


def test_unused_image_goes(layout: Layout, connection: Connection) -> None:
    put(layout, OLD, "mine")
    assert remove(layout, connection, "mine") > 100_000
    assert not inventory.digests(layout) and not drafts(layout)
    assert not list(layout.image_names.iterdir())
    with pytest.raises(errors.NotFoundError, match="no image 'mine'"):
        remove(layout, connection, "mine")


def test_image_below_an_overlay_stays(layout: Layout, connection: Connection) -> None:
    overlay(layout, "web", put(layout, OLD, "mine"))
    for word in ("mine", OLD[:6], OLD):
        with pytest.raises(errors.ConflictError, match="in use by machine 'web'") as caught:
            remove(layout, connection, word)
        assert caught.value.exit_code == 4
    assert catalog.find(layout, "mine").present


def test_image_below_a_chain_stays(layout: Layout, connection: Connection) -> None:
    lower = overlay(layout, "web", put(layout, OLD, "mine"), "lower")
    upper = overlay(layout, "web", lower, "upper")
    assert image_users.find(layout, connection).of(OLD) == ("web",)
    tree = image_tree.grown(layout, image_users.find(layout, connection))
    ((leaf,),) = [branch.leaves for branch in tree.branches]
    assert leaf.files == (str(upper), str(lower), catalog.find(layout, "mine").disk)
    assert leaf.own == sum(path.stat().st_blocks * 512 for path in (upper, lower)) == tree.own


@pytest.mark.parametrize("where", ["record", "intent"])
def test_what_is_only_written_down_counts(
    layout: Layout, connection: Connection, where: str
) -> None:
    put(layout, OLD, "mine")
    place = layout.machine("web")
    if where == "intent":
        records.begin(place, "up", image_digest=OLD)
    else:
        files.make_directory(place.directory)
        record = records.Record(
            name="web", project="p", uuid="u", uri="x", mode="full", image_digest=OLD
        )
        records.write(place, record)
    with pytest.raises(errors.ConflictError, match="machine 'web'"):
        remove(layout, connection, "mine")


def test_definition_of_a_domain_counts(layout: Layout, connection: Connection) -> None:
    put(layout, OLD, "mine")
    kernel = layout.image(OLD) / "kernel"
    connection.handle.defineXML(
        "<domain type='test'><name>other</name><memory>8192</memory>"
        f"<os><type>hvm</type><kernel>{kernel}</kernel></os></domain>"
    )
    with pytest.raises(errors.ConflictError, match="machine 'other'"):
        remove(layout, connection, "mine")
    connection.handle.lookupByName("other").undefine()
    remove(layout, connection, "mine")


def test_up_that_comes_in_between_keeps_its_image(
    layout: Layout, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has written its intent and seen the image; the removal sees the intent, and undoes."""
    put(layout, OLD, "mine")
    real = files.sync_directory

    def intent_first(path: pathlib.Path) -> None:
        real(path)
        if path == layout.images and not layout.image(OLD).exists():
            records.begin(layout.machine("web"), "up", image_digest=OLD)

    monkeypatch.setattr(files, "sync_directory", intent_first)
    with pytest.raises(errors.ConflictError, match="machine 'web'"):
        remove(layout, connection, "mine")
    assert catalog.find(layout, "mine").present
    assert not drafts(layout)


def test_removal_that_was_killed_is_undone_where_needed(
    layout: Layout, connection: Connection
) -> None:
    overlay(layout, "web", put(layout, OLD, "mine"))
    put(layout, NEW, "other")
    for digest in (OLD, NEW):
        layout.image(digest).rename(layout.images / f".tmp-removed-{digest}-01234567")
    for each in image_removal.prunable(layout, connection, with_cache=False):
        image_removal.clear(layout, connection, each)
    assert inventory.digests(layout) == [OLD], "a machine needs it: it is back"
    assert not drafts(layout)


def test_one_of_two_names_goes_alone(layout: Layout, connection: Connection) -> None:
    overlay(layout, "web", put(layout, OLD, "mine"))
    files.write_json(
        layout.image_names / "also.json", {"digest": OLD, catalog.IMPORTED: {"from": "/x"}}
    )
    assert remove(layout, connection, "also") == 0
    assert catalog.find(layout, "mine").present
    with pytest.raises(errors.ConflictError):
        remove(layout, connection, "mine")


def test_digits_that_mean_several_are_asked_about(layout: Layout) -> None:
    put(layout, OLD)
    put(layout, OLD[:-1] + "c")
    with pytest.raises(errors.UsageError, match="several images"):
        image_removal.chosen(layout, [OLD[:8]])


def found(layout: Layout, connection: Connection) -> dict[str, What]:
    return {
        each.name: each.what
        for each in image_removal.prunable(layout, connection, with_cache=False)
    }


def test_prune(layout: Layout, connection: Connection, tmp_path: pathlib.Path) -> None:
    overlay(layout, "web", put(layout, OLD))
    put(layout, NEW)
    put(layout, "ef" * 32, "named")
    stale = layout.image_names / f"file-{'0' * 64}.json"
    files.write_json(stale, {"digest": NEW, "path": str(tmp_path / "gone"), "identity": [1]})
    (layout.images / ".tmp-half-01234567").mkdir()
    (layout.image_names / ".tmp-half.json-01234567").write_text("{}")
    seen = found(layout, connection)
    assert seen == {"half": What.DRAFT, stale.stem: What.COPY, NEW: What.IMAGE}
    chosen = image_removal.prunable(layout, connection, with_cache=False)
    assert sum(image_removal.clear(layout, connection, each) for each in chosen) > 100_000
    assert inventory.digests(layout) == [OLD, "ef" * 32]
    assert not found(layout, connection) and not drafts(layout) and not stale.exists()


def test_prune_leaves_alone_what_somebody_makes(layout: Layout, connection: Connection) -> None:
    """Whoever makes an image holds its name's lock until the image has that name."""
    put(layout, NEW)
    (layout.images / ".tmp-app-01234567").mkdir()
    chosen = image_removal.prunable(layout, connection, with_cache=False)
    with locks.hold(layout.lock("image", "app"), None, "Image 'app'"):
        assert not found(layout, connection)
        assert [image_removal.clear(layout, connection, each) for each in chosen] == [0, 0]
    assert inventory.digests(layout) == [NEW]
    assert set(found(layout, connection)) == {"app", NEW}


def test_hostile_overlay_leads_nowhere(layout: Layout, connection: Connection) -> None:
    """A reference out of the store is not followed, and what is unclear is not removed."""
    put(layout, OLD, "mine")
    place = layout.machine("evil")
    files.make_directory(place.directory)
    words = ("qemu-img", "create", "-q", "-u", "-f", "qcow2")
    subprocess.run(
        [*words, "-F", "raw", "-b", "/etc/shadow", place.disk("root"), "1M"],
        check=True,
        timeout=60,
    )
    users = image_users.find(layout, connection)
    assert users.unclear == ("evil",)
    tree = image_tree.grown(layout, users)
    (leaf,) = tree.others
    assert "outside the store" in leaf.problem and leaf.files == (str(place.disk("root")),)
    with pytest.raises(errors.ConflictError, match="cannot be told what machine 'evil' uses"):
        remove(layout, connection, "mine")
    assert not [name for name, what in found(layout, connection).items() if what is What.IMAGE]


def test_long_chains_are_shown_and_not_made_longer(layout: Layout, connection: Connection) -> None:
    below = put(layout, OLD, "mine")
    for number in range(chain.LONGEST):
        below = overlay(layout, "deep", below, f"d{number}")
    tree: Any = image_tree.grown(layout, image_users.find(layout, connection))
    (branch,) = tree.branches
    assert ["more than 16" in leaf.problem for leaf in branch.leaves] == [True]
    place = layout.machine("deeper")
    files.make_directory(place.directory)
    disk = Disk(name="root", file=str(place.disk("root")), size=16 << 20, base=str(below))
    machine = Machine(
        name="deeper",
        project="deep",
        uuid="0f3c1f6e-8a71-4a36-9d5e-0b7f7d0f0c11",
        mode=Mode.FULL,
        chipset=Chipset.Q35,
        cpus=1,
        cpus_max=1,
        memory=512 << 20,
        memory_max=512 << 20,
        ready=Ready(),
        console_log=str(place.console_log),
        disks=(disk,),
    )
    with pytest.raises(errors.ConflictError, match="16 files below one another"):
        steps.make_disks(Site(connection, layout), machine, running=False)
    assert not place.disk("root").exists()
    on_image = dataclasses.replace(disk, base=str(layout.image(OLD) / "disk.qcow2"))
    machine = dataclasses.replace(machine, disks=(on_image,))
    steps.make_disks(Site(connection, layout), machine, running=False)
    assert len(chain.follow(place.disk("root"), layout.home).links) == 2


def test_inventory_names_everything(layout: Layout, tmp_path: pathlib.Path) -> None:
    put(layout, OLD, "mine")
    put(layout, NEW)
    copy = {"digest": "ef" * 32, "path": "/home/x/disk.qcow2"}
    put(layout, "ef" * 32)
    files.write_json(layout.image_names / f"file-{'1' * 64}.json", copy)
    pin = layout.image_pin("2" * 64)
    files.make_directory(pin.parent)
    put(layout, "12" * 32)
    pin.write_text(json.dumps({"url": "https://example.org/a/disk.img", "sha256": "12" * 32}))
    kinds = {(item.name, item.kind.value) for item in inventory.items(layout)}
    assert {
        ("mine", "imported"),
        ("", "no name"),
        ("disk.qcow2", "copied"),
        ("disk.img", "pulled"),
        ("tiny", "not built"),
    } <= kinds
    assert len(kinds) == len(inventory.items(layout))
    assert os.path.basename(str(layout.image(OLD))) == OLD
