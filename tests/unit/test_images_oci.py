from __future__ import annotations

import gzip
import json
import pathlib
import shutil
from typing import Any

import pytest

from tests.images.containers import PROGRAM, Layout, directory, file, layer, packed, saved, sha256
from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import blobs, oci

WHAT = "The container image 'x'"
UPPER = layer(file("upper"), file(".wh.lower", b""))
LAYERS = (layer(PROGRAM, file("lower")), UPPER)


def names(path: pathlib.Path, spool: pathlib.Path, reference: str = "") -> list[str]:
    """Import a container image as far as its files, and return their names."""
    spool.mkdir(exist_ok=True)
    deadline = Deadline.after(60)
    with blobs.opened(path, spool, deadline) as source:
        found = oci.read(source, WHAT, reference, deadline)
        tree = oci.unpack(found, spool, WHAT, deadline, lambda *_: None)
    shutil.rmtree(spool)
    return [name.decode() for name, _ in tree.walk()]


@pytest.fixture
def spool(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "spool"


@pytest.mark.parametrize("mode", ["", "w", "w:gz"], ids=["directory", "tar", "tar.gz"])
def test_layout(tmp_path: pathlib.Path, spool: pathlib.Path, mode: str) -> None:
    path = Layout(*LAYERS).write(tmp_path / "layout")
    if mode:
        path = packed(path, tmp_path / "archive", mode)
    assert oci.recognised(path)
    assert names(path, spool) == ["bin", "bin/run", "upper"]


def test_plain_layers_and_several_gzip_members(tmp_path: pathlib.Path, spool: pathlib.Path) -> None:
    def in_two(content: bytes) -> bytes:
        return gzip.compress(content[:700]) + gzip.compress(content[700:])

    media = "application/vnd.oci.image.layer.v1.tar"
    plain = Layout(*LAYERS, pack=bytes, media=media).write(tmp_path / "plain")
    several = Layout(*LAYERS, pack=in_two).write(tmp_path / "several")
    assert names(plain, spool) == names(several, spool) == ["bin", "bin/run", "upper"]


def test_saved_archive(tmp_path: pathlib.Path, spool: pathlib.Path) -> None:
    path = saved(tmp_path / "saved.tar", *LAYERS)
    assert names(path, spool) == names(path, spool, "app:1") == ["bin", "bin/run", "upper"]
    with pytest.raises(errors.RefusedError, match="no image 'other'"):
        names(path, spool, "other")


def test_one_of_several_platforms_and_names(tmp_path: pathlib.Path, spool: pathlib.Path) -> None:
    image = Layout(*LAYERS)
    image.manifest(platform={"os": "linux", "architecture": "amd64"})
    image.config["architecture"] = "arm64"
    image.manifest(platform={"os": "linux", "architecture": "arm64"})
    assert "upper" in names(image.write(tmp_path / "platforms"), spool)
    two = Layout(*LAYERS)
    two.manifest("one")
    two.config["created"] = "2026-01-01T00:00:00Z"
    two.manifest("two")
    path = two.write(tmp_path / "names")
    with pytest.raises(errors.UsageError, match="one, two"):
        names(path, spool)
    assert "upper" in names(path, spool, "two")


def test_nested_index(tmp_path: pathlib.Path, spool: pathlib.Path) -> None:
    image = Layout(*LAYERS)
    inner = {"schemaVersion": 2, "manifests": [image.manifest()]}
    kind = "application/vnd.oci.image.index.v1+json"
    image.manifests = [image.blob(json.dumps(inner).encode(), kind)]
    assert "upper" in names(image.write(tmp_path / "layout"), spool)


def change_config(image: Layout, **fields: Any) -> None:
    image.config.update(fields)


def change_layer(image: Layout, **fields: Any) -> None:
    image.described[0] = {**image.described[0], **fields}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda image: change_config(image, architecture="arm64"), "linux/arm64"),
        (lambda image: change_config(image, os="windows"), "windows/amd64"),
        (lambda image: change_config(image, rootfs={"diff_ids": []}), "unpack to"),
        (lambda image: change_config(image, rootfs={"diff_ids": ["x"]}), "digest of a layer"),
        (lambda image: change_config(image, rootfs={"diff_ids": [sha256(b"")]}), "is not what"),
        (lambda image: change_layer(image, size=5), "damaged"),
        (lambda image: change_layer(image, digest=sha256(b"")), "lacks the part"),
        (lambda image: change_layer(image, digest="sha256:../../../x"), "without a digest"),
        (lambda image: change_layer(image, digest="md5:0"), "without a digest"),
        (lambda image: change_layer(image, size=-1), "without a size"),
        (lambda image: change_layer(image, mediaType="text/html"), "type 'text/html'"),
        (lambda image: change_layer(image, urls=["http://127.0.0.1:9/"]), "lies elsewhere"),
        (
            lambda image: change_layer(
                image, mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
            ),
            "lies elsewhere",
        ),
        (lambda image: setattr(image, "changed", {"layers": []}), "without layers"),
        (lambda image: setattr(image, "changed", {"layers": "x"}), "without layers"),
        (lambda image: setattr(image, "changed", {"config": {}}), "without a digest"),
    ],
)
def test_refused(tmp_path: pathlib.Path, spool: pathlib.Path, change: Any, reason: str) -> None:
    image = Layout()
    change(image)
    path = image.write(tmp_path / "layout")
    with pytest.raises(errors.RefusedError, match=reason):
        names(path, spool)


def test_changed_blobs_are_refused(tmp_path: pathlib.Path, spool: pathlib.Path) -> None:
    image = Layout(*LAYERS)
    top = image.write(tmp_path / "layout")
    for path in sorted((top / "blobs" / "sha256").iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(errors.RefusedError, match="damaged"):
            names(top, spool)
        path.write_bytes(content)
        path.rename(top / "aside")
        with pytest.raises(errors.RefusedError, match="lacks"):
            names(top, spool)
        path.symlink_to(top / "aside")
        with pytest.raises(errors.RefusedError, match="lacks"):
            names(top, spool)
        path.unlink()
        (top / "aside").rename(path)
    assert "upper" in names(top, spool)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("oci-layout", b"{}", "version of the image layout"),
        ("oci-layout", b"[" * 100_000, "not JSON"),
        ("index.json", b"", "not JSON"),
        ("index.json", b"[]", "cannot be understood"),
        ("index.json", b'{"manifests": []}', "no image"),
        ("index.json", b'{"manifests": [7]}', "without a digest"),
        ("index.json", b" " * (5 << 20), "too large"),
    ],
)
def test_refused_files(
    tmp_path: pathlib.Path, spool: pathlib.Path, name: str, content: bytes, reason: str
) -> None:
    top = Layout().write(tmp_path / "layout")
    (top / name).write_bytes(content)
    with pytest.raises(errors.RefusedError, match=reason):
        names(top, spool)


def test_index_in_itself_ends(tmp_path: pathlib.Path, spool: pathlib.Path) -> None:
    image = Layout()
    kind = "application/vnd.oci.image.index.v1+json"
    below = [image.manifest()]
    for _ in range(7):
        body = json.dumps({"schemaVersion": 2, "manifests": below}).encode()
        below = [image.blob(body, kind)]
    image.manifests = below
    with pytest.raises(errors.RefusedError, match="index"):
        names(image.write(tmp_path / "layout"), spool)


def test_saved_archive_with_evil_names(tmp_path: pathlib.Path, spool: pathlib.Path) -> None:
    listing = [{"Config": "../../../etc/passwd", "Layers": ["/etc/passwd"]}]
    path = tmp_path / "evil.tar"
    path.write_bytes(layer(file("manifest.json", json.dumps(listing).encode())))
    with pytest.raises(errors.RefusedError, match="lacks"):
        names(path, spool)
    changed = saved(tmp_path / "changed.tar", *LAYERS).read_bytes()
    path.write_bytes(changed.replace(b'"amd64"', b'"amd65"'))
    with pytest.raises(errors.RefusedError, match="not what its name says"):
        names(path, spool)


def test_layers_that_unpack_to_other_bytes(tmp_path: pathlib.Path, spool: pathlib.Path) -> None:
    image = Layout(layer(PROGRAM))
    image.config["rootfs"]["diff_ids"] = [sha256(layer(PROGRAM, file("x")))]
    with pytest.raises(errors.RefusedError, match=r"Layer 1 of .* is not what"):
        names(image.write(tmp_path / "layout"), spool)


def test_gzip_bombs_are_refused(
    tmp_path: pathlib.Path, spool: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "LARGEST", 10 << 20)
    path = Layout(layer(PROGRAM, file("zeros", bytes(20 << 20)))).write(tmp_path / "layout")
    with pytest.raises(errors.RefusedError, match="more than"):
        names(path, spool)


def test_cut_and_damaged_gzip(tmp_path: pathlib.Path, spool: pathlib.Path) -> None:
    for number, pack in enumerate(
        (
            lambda content: gzip.compress(content)[:-20],
            lambda content: gzip.compress(content)[:-4] + b"\0\0\0\0",
            lambda content: gzip.compress(content) + b"rubbish",
        )
    ):
        path = Layout(pack=pack).write(tmp_path / f"layout{number}")
        with pytest.raises(errors.RefusedError):
            names(path, spool.with_name(f"spool{number}"))


def test_other_files_are_no_container_images(tmp_path: pathlib.Path, spool: pathlib.Path) -> None:
    disk = tmp_path / "disk.qcow2"
    disk.write_bytes(b"QFI\xfb" + bytes(1000))
    assert not oci.recognised(disk)
    other = tmp_path / "other.tar"
    other.write_bytes(layer(directory("d")))
    with pytest.raises(errors.RefusedError, match="no container image"):
        names(other, spool)
