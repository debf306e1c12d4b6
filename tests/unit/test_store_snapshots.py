"""The tree of snapshots, and how the store remembers it."""

from __future__ import annotations

import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

from vmctl import errors
from vmctl.store import snapshots
from vmctl.store.layout import Layout, MachineFiles
from vmctl.store.snapshots import NAME, Detail, Kind, Snapshot, Tree


def snapshot(name: str) -> Snapshot:
    return Snapshot(name=name, kind=Kind.MEMORY)


def grown(*names: str) -> Tree:
    tree = Tree()
    for name in names:
        tree = tree.added(snapshot(name))
    return tree


def shape(tree: Tree) -> list[tuple[int, str]]:
    return [(depth, each.name) for depth, each in tree.ordered()]


def test_each_is_the_child_of_the_one_before() -> None:
    tree = grown("a", "b", "c")
    assert shape(tree) == [(0, "a"), (1, "b"), (2, "c")]
    assert tree.current == "c"


def test_a_restore_makes_a_branch() -> None:
    tree = grown("a", "b").at("a").added(snapshot("c"))
    assert shape(tree) == [(0, "a"), (1, "b"), (1, "c")]


def test_children_of_a_deleted_one_go_to_its_parent() -> None:
    tree = grown("a", "b").at("a").added(snapshot("c")).without("a")
    assert shape(tree) == [(0, "b"), (0, "c")]
    assert grown("a", "b", "c").without("b").find("c") == Snapshot(
        name="c", kind=Kind.MEMORY, parent="a"
    )


def test_the_current_one_deleted_leaves_its_parent_current() -> None:
    assert grown("a", "b").without("b").current == "a"
    assert grown("a").without("a") == Tree()
    assert grown("a", "b").without("nothing") == grown("a", "b")


def test_a_damaged_tree_does_not_loop() -> None:
    one = Snapshot(name="a", kind=Kind.DISKS, parent="b")
    two = Snapshot(name="b", kind=Kind.DISKS, parent="a")
    assert sorted(name for _, name in shape(Tree((one, two)))) == ["a", "b"]


def test_all_is_read_back(tmp_path: pathlib.Path) -> None:
    place = MachineFiles(tmp_path)
    tree = Tree(
        (
            Snapshot(
                name="a",
                kind=Kind.DISKS,
                created=1.5,
                running=True,
                quiesced=True,
                memory=7,
                origin="restore",
                comment="ä\n\x1b[31m",
            ),
            Snapshot(name="b", kind=Kind.OFFLINE, parent="a"),
        ),
        "a",
    )
    snapshots.write(place, tree)
    assert snapshots.read(place) == tree
    assert snapshots.count(place) == 2
    assert place.snapshots.stat().st_mode & 0o777 == 0o600


def test_details_are_private_and_keep_bytes(tmp_path: pathlib.Path) -> None:
    place = MachineFiles(tmp_path)
    text = b"\xff\xfe name".decode("utf-8", "surrogateescape")
    detail = Detail(
        xml="<domain/>", files={"spec": text}, record={"name": "a"}, run="r", agent=True
    )
    snapshots.write_detail(place, "a", detail)
    assert snapshots.read_detail(place, "a") == detail
    assert place.snapshot("a").stat().st_mode & 0o777 == 0o600
    snapshots.forget_files(place, "a")
    snapshots.forget_files(place, "a")
    assert snapshots.read_detail(place, "a") is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"snapshots": 3}', '{"snapshots": [{"name": "a", "kind": "odd"}]}']
)
def test_what_cannot_be_read_is_not_written_over(tmp_path: pathlib.Path, text: str) -> None:
    place = Layout(tmp_path).machine("a")
    place.directory.mkdir(parents=True)
    assert snapshots.read(place) == Tree()
    place.snapshots.write_text(text)
    with pytest.raises(errors.RefusedError):
        snapshots.read(place)
    assert snapshots.glance(place) == Tree()


@pytest.mark.parametrize("name", ["a", "before-restore-1", "0", "a" * 63])
def test_names(name: str) -> None:
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a b", "a\n", "a" * 64, "ä"])
def test_names_that_are_refused(name: str) -> None:
    assert not NAME.fullmatch(name)


@hypothesis.given(
    st.lists(
        st.tuples(st.sampled_from(["add", "at", "without"]), st.sampled_from("abcdef")), max_size=30
    )
)
def test_the_tree_shows_each_snapshot_once_whatever_is_done(steps: list[tuple[str, str]]) -> None:
    tree, model = Tree(), set[str]()
    for verb, name in steps:
        if verb == "add" and name not in model:
            tree = tree.added(snapshot(name))
            model.add(name)
        elif verb == "at" and name in model:
            tree = tree.at(name)
        elif verb == "without":
            tree = tree.without(name)
            model.discard(name)
    shown = [name for _, name in shape(tree)]
    assert sorted(shown) == sorted(model)
    assert tree.current in model | {""}
    places = {name: number for number, name in enumerate(shown)}
    for each in tree.snapshots:
        assert not each.parent or places[each.parent] < places[each.name]
