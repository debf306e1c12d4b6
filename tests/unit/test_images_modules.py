from __future__ import annotations

import gzip
import lzma
import pathlib
import struct

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import modules


def module(**facts: str) -> bytes:
    """Return an ELF file with a .modinfo section; `alias` may hold several, by spaces."""
    words = [f"alias={alias}" for alias in facts.pop("alias", "").split()]
    words += [f"{key}={value}" for key, value in facts.items()]
    info = "".join(f"{word}\0" for word in words).encode()
    names = b"\0.modinfo\0.shstrtab\0"
    sections = 64 + len(info) + len(names)
    header = struct.pack(
        *("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 62, 1, 0, 0, sections),
        *(0, 64, 0, 0, 64, 3, 2),
    )
    table = struct.pack("<IIQQQQIIQQ", *[0] * 10)
    table += struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 64, len(info), 0, 0, 1, 0)
    table += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, 64 + len(info), len(names), 0, 0, 1, 0)
    return header + info + names + table


@pytest.fixture
def kernel_tree(tmp_path: pathlib.Path) -> pathlib.Path:
    for path, content in {
        "kernel/virt/virtio-blk.ko": module(depends="virtio,virtio_ring", alias="virtio:d2v*"),
        "kernel/virt/virtio.ko": module(depends="virtio_ring"),
        "kernel/virt/virtio_ring.ko": module(depends=""),
        "kernel/fs/ext4.ko.xz": lzma.compress(module(depends="jbd2", softdep="pre: crc32c")),
        "kernel/fs/jbd2.ko": module(depends=""),
        "kernel/crypto/crc32c.ko": module(depends=""),
        "kernel/net/unwanted.ko": module(depends=""),
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    return tmp_path


def chosen(tree: pathlib.Path, *names: str) -> dict[str, modules.Module]:
    return modules.chosen(tree, names, Deadline.after(10))


def test_takes_what_was_asked_for_and_all_that_it_needs(kernel_tree: pathlib.Path) -> None:
    assert list(chosen(kernel_tree, "virtio_blk")) == ["virtio", "virtio_blk", "virtio_ring"]
    assert list(chosen(kernel_tree, "ext4")) == ["crc32c", "ext4", "jbd2"]


def test_leaves_out_what_the_kernel_does_not_have(kernel_tree: pathlib.Path) -> None:
    assert list(chosen(kernel_tree, "built-in", "jbd2")) == ["jbd2"]


def test_compressed_modules_are_expanded(kernel_tree: pathlib.Path) -> None:
    ext4 = chosen(kernel_tree, "ext4")["ext4"]
    assert ext4.path == "kernel/fs/ext4.ko"
    assert ext4.content.startswith(b"\x7fELF")


def test_tables_name_dependencies_nearest_first(kernel_tree: pathlib.Path) -> None:
    tables = modules.tables(chosen(kernel_tree, "virtio-blk"))
    lines = tables["modules.dep"].decode().splitlines()
    assert "kernel/virt/virtio-blk.ko: kernel/virt/virtio.ko kernel/virt/virtio_ring.ko" in lines
    assert "kernel/virt/virtio_ring.ko:" in lines
    assert tables["modules.alias"] == b"alias virtio:d2v* virtio_blk\n"


@pytest.mark.parametrize("content", [b"", b"html", b"\xfd7zXZ\0"])
def test_damaged_module_is_an_error_for_people(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "bad.ko").write_bytes(content)
    with pytest.raises(errors.HostError, match="damaged"):
        chosen(tmp_path, "bad")
    (tmp_path / "bad.ko").rename(tmp_path / "bad.ko.xz")
    with pytest.raises(errors.HostError, match="damaged"):
        chosen(tmp_path, "bad")


def test_compressed_module_is_the_same_at_any_time(kernel_tree: pathlib.Path) -> None:
    module = chosen(kernel_tree, "jbd2")["jbd2"]
    small = modules.compressed(module)
    assert small == modules.compressed(module)
    assert (small.name, small.path) == ("jbd2", "kernel/fs/jbd2.ko.gz")
    assert gzip.decompress(small.content) == module.content
