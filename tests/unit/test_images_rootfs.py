from __future__ import annotations

import io
import pathlib
import tarfile

import pytest

from tests.images.containers import device, directory, file, hardlink, layer, symlink
from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import blobs, rootfs
from vmctl.images.rootfs import Tree
from vmctl.images.tarball import Archive, Kind


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> Tree:
    return Tree(tmp_path, "The container image 'x'")


def apply(tree: Tree, *layers: bytes) -> list[str]:
    """Apply layers and return the paths that are left."""
    for each in layers:
        tree.apply(Archive(io.BytesIO(each), "The layer"), Deadline.after(60))
    return [path.decode() for path, _ in tree.walk()]


def content(tree: Tree, path: str) -> bytes:
    inode = tree.find(path.encode())
    assert inode is not None and inode.kind is Kind.FILE
    return tree.read(inode, 1000)


def test_layers_lie_on_one_another(tree: Tree) -> None:
    assert apply(
        tree,
        layer(directory("etc", mode=0o700), file("etc/a", b"1"), file("etc/b", b"1")),
        layer(file("etc/b", b"2", uid=7, gid=8, mode=0o4755)),
    ) == ["etc", "etc/a", "etc/b"]
    assert (content(tree, "etc/a"), content(tree, "/etc/b")) == (b"1", b"2")
    changed, above = tree.find(b"etc/b"), tree.find(b"etc")
    assert changed is not None and above is not None
    assert (changed.uid, changed.gid, changed.mode) == (7, 8, 0o4755)
    assert above.mode == 0o700, "a layer that only puts a file there leaves the directory alone"


def test_whiteout_hides_what_lower_layers_have(tree: Tree) -> None:
    below = layer(file("a"), directory("d"), file("d/e/f"), file("kept"))
    assert apply(tree, below, layer(file(".wh.a", b""), file(".wh.d", b""))) == ["kept"]


@pytest.mark.parametrize("order", [1, -1], ids=["whiteout first", "whiteout last"])
def test_whiteout_spares_its_own_layer(tree: Tree, order: int) -> None:
    below = layer(file("d/old"), file("d/both", b"1"), file("a", b"1"))
    own = [file(".wh.a", b""), file("a", b"2"), file(".wh.d", b""), file("d/new")]
    assert apply(tree, below, layer(*own[::order])) == ["a", "d", "d/new"]
    assert content(tree, "a") == b"2"


@pytest.mark.parametrize("order", [1, -1], ids=["whiteout first", "whiteout last"])
def test_opaque_directory_shows_its_own_layer_alone(tree: Tree, order: int) -> None:
    below = layer(file("d/old"), file("d/sub/old"), file("d/sub/deep/old"))
    own = [file("d/.wh..wh..opq", b""), file("d/new"), file("d/sub/new")]
    assert apply(tree, below, layer(*own[::order])) == ["d", "d/new", "d/sub", "d/sub/new"]


def test_whiteout_of_nothing_and_below_a_file(tree: Tree) -> None:
    assert apply(tree, layer(file("a"), file(".wh.b", b""), file("a/.wh.c", b""))) == ["a"]


def test_kinds_replace_one_another(tree: Tree) -> None:
    assert apply(tree, layer(file("f")), layer(directory("f"), file("f/x"))) == ["f", "f/x"]
    assert apply(tree, layer(file("f"))) == ["f"]


def test_hard_links_share_a_file(tree: Tree) -> None:
    apply(tree, layer(file("a", b"1"), hardlink("b", "a")), layer(hardlink("c", "/b")))
    assert tree.find(b"a") is tree.find(b"b") is tree.find(b"c")
    apply(tree, layer(file(".wh.a", b"")))
    assert content(tree, "c") == b"1"


def test_hard_link_to_a_link_means_the_link(tree: Tree) -> None:
    apply(tree, layer(symlink("l", "/etc/passwd"), hardlink("b", "l")))
    assert tree.root.entries[b"b"].inode.kind is Kind.SYMLINK


def test_devices_and_attributes_are_data(tree: Tree) -> None:
    marked = file("cap", b"x", pax_headers={"SCHILY.xattr.security.capability": "\1\0\0\2"})
    hidden = file("no", b"x", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"})
    apply(tree, layer(device("c"), device("p", tarfile.FIFOTYPE), marked, hidden))
    character, capable, other = tree.find(b"c"), tree.find(b"cap"), tree.find(b"no")
    assert character is not None and (character.kind, character.device) == (Kind.CHARACTER, (5, 1))
    assert capable is not None and capable.xattrs == {b"security.capability": b"\1\0\0\2"}
    assert other is not None and not other.xattrs


def test_links_lead_nowhere_but_into_the_tree(tree: Tree, tmp_path: pathlib.Path) -> None:
    outside = tmp_path.parent / "outside"
    apply(
        tree,
        layer(
            directory("real"),
            symlink("absolute", "/real"),
            symlink("up", "../../../../real"),
            symlink("host", str(outside)),
            file("absolute/a"),
            file("up/b"),
            file("host/c"),
        ),
    )
    assert sorted(tree.find(b"real").entries) == [b"a", b"b"]  # type: ignore[union-attr]
    assert tree.find(os_path(outside) + b"/c") is not None, "inside the tree it was made"
    assert not outside.exists()


def os_path(path: pathlib.Path) -> bytes:
    return str(path).encode()


def test_many_names_stay_plain(tree: Tree) -> None:
    assert apply(tree, layer(file("./a"), file("b//c"), file("/d"), file("..e"))) == [
        "..e",
        "a",
        "b",
        "b/c",
        "d",
    ]


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([file("../evil")], "leads out"),
        ([file("a/../../evil")], "leads out"),
        ([hardlink("a", "../../etc/passwd")], "leads out"),
        ([hardlink("a", "/etc/passwd")], "no file of it"),
        ([directory("d"), hardlink("a", "d")], "no file of it"),
        ([symlink("l", "/etc"), hardlink("a", "l/passwd")], "no file of it"),
        ([symlink("a", "b"), symlink("b", "a"), file("a/x")], "circles"),
        ([file("f"), file("f/x")], "no directory"),
        ([file("f"), symlink("l", "f"), file("l/x")], "no directory"),
        ([file("a\nb")], "line break"),
        ([file("x" * 256)], "too long"),
        ([file("/".join("a" * 300))], "too long"),
        ([file("a", pax_headers={"SCHILY.xattr.user.x": "y" * 4000})], "too large"),
    ],
)
def test_refused(tree: Tree, entries: list[object], reason: str) -> None:
    with pytest.raises(errors.RefusedError, match=reason):
        apply(tree, layer(*entries))  # type: ignore[arg-type]


def test_deep_trees_by_way_of_links_are_refused(tree: Tree) -> None:
    deep = "/".join("a" * 200)
    entries = [directory(deep), symlink("l", deep), file("l/" + "/".join("b" * 200))]
    with pytest.raises(errors.RefusedError, match="no directory"):
        apply(tree, layer(*entries))


def test_bombs_are_refused(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(rootfs, "MOST_ENTRIES", 3)
    with pytest.raises(errors.RefusedError, match="more than 3 files"):
        apply(tree, layer(file("a"), file("b")), layer(file("a"), file("b")))
    monkeypatch.setattr(blobs, "LARGEST", 1000)
    (tmp_path / "fresh").mkdir()
    fresh = Tree(tmp_path / "fresh", "The container image 'x'")
    with pytest.raises(errors.RefusedError, match="more than"):
        apply(fresh, layer(file("a", bytes(900))), layer(file("a", bytes(900))))


def test_zeros_become_holes(tree: Tree) -> None:
    apply(tree, layer(file("zeros", bytes(8 << 20)), file("mixed", bytes(4 << 20) + b"end")))
    zeros, mixed = tree.find(b"zeros"), tree.find(b"mixed")
    assert zeros is not None and zeros.content is not None
    assert mixed is not None and mixed.content is not None
    assert zeros.content.stat().st_blocks == 0
    assert mixed.content.stat().st_blocks <= 16
    assert mixed.content.read_bytes() == bytes(4 << 20) + b"end"
