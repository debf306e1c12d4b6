from __future__ import annotations

import stat

import pytest

from vmctl.images import initramfs


def read(archive: bytes) -> list[tuple[str, dict[str, int], bytes]]:
    """Read a newc archive, independently of the writer."""
    names = ("ino", "mode", "uid", "gid", "nlink", "mtime", "size", "dma", "dmi", "rma", "rmi")
    found = []
    offset = 0
    while True:
        assert archive[offset : offset + 6] == b"070701"
        numbers = [int(archive[offset + 6 + 8 * i : offset + 14 + 8 * i], 16) for i in range(13)]
        fields = dict(zip(names, numbers, strict=False))
        start = offset + 110
        name = archive[start : start + numbers[11] - 1].decode()
        data = (start + numbers[11] + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found.append((name, fields, archive[data : data + fields["size"]]))
        offset = (data + fields["size"] + 3) & ~3


ENTRIES = {
    "init": initramfs.regular(b"#!/bin/sh\n", 0o755),
    "bin/sh": initramfs.link("busybox"),
    "dev/console": initramfs.character_device(5, 1),
    "tmp": initramfs.directory(0o1777),
}


def test_entries_come_back_as_they_were_put_in() -> None:
    found = {name: (fields, content) for name, fields, content in read(initramfs.archive(ENTRIES))}
    assert found["init"][0]["mode"] == stat.S_IFREG | 0o755
    assert found["init"][1] == b"#!/bin/sh\n"
    assert found["bin/sh"][0]["mode"] == stat.S_IFLNK | 0o777
    assert found["bin/sh"][1] == b"busybox"
    assert stat.S_ISCHR(found["dev/console"][0]["mode"])
    assert (found["dev/console"][0]["rma"], found["dev/console"][0]["rmi"]) == (5, 1)
    assert found["tmp"][0]["mode"] == stat.S_IFDIR | 0o1777


def test_parents_come_before_their_children() -> None:
    names = [name for name, _, _ in read(initramfs.archive(ENTRIES))]
    assert names.index("bin") < names.index("bin/sh")
    assert names.index("dev") < names.index("dev/console")


def test_bytes_do_not_depend_on_order_owner_or_time() -> None:
    archive = initramfs.archive(ENTRIES)
    assert initramfs.archive(dict(reversed(ENTRIES.items()))) == archive
    for _, fields, _ in read(archive):
        assert (fields["uid"], fields["gid"], fields["mtime"]) == (0, 0, 0)


@pytest.mark.parametrize("size", range(6))
def test_content_of_any_length_is_padded(size: int) -> None:
    entries = {"a": initramfs.regular(b"x" * size), "b": initramfs.regular(b"after")}
    archive = initramfs.archive(entries)
    assert len(archive) % 512 == 0
    assert [content for _, _, content in read(archive)] == [b"x" * size, b"after"]


def test_links_are_read_back() -> None:
    content = initramfs.archive(
        {
            "bin/a": initramfs.link("/bin/b"),
            "bin/b": initramfs.regular(b"x" * 1001, 0o755),
            "c": initramfs.link("x"),
            "dev/console": initramfs.character_device(5, 1),
        }
    )
    assert initramfs.links(content) == {"bin/a": "/bin/b", "c": "x"}
    assert initramfs.links(b"") == {}
