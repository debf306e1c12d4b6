"""The gate, tried on images that qemu-img really made."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import gate
from vmctl.machine.model import DiskFormat

QCOW2 = DiskFormat.QCOW2
RAW = DiskFormat.RAW


def qemu_img(*words: str | os.PathLike[str]) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True, timeout=60)


def admit(path: pathlib.Path, format: DiskFormat = QCOW2) -> gate.ImageInfo:  # noqa: A002
    return gate.admit(path, format, Deadline.after(60))


def refused(path: pathlib.Path, why: str, format: DiskFormat = QCOW2) -> errors.RefusedError:  # noqa: A002
    with pytest.raises(errors.RefusedError, match=why) as caught:
        admit(path, format)
    assert caught.value.exit_code == 7
    assert f"'{path}'" in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.fixture
def good(tmp_path: pathlib.Path) -> pathlib.Path:
    """A qcow2 with 4 MiB of data in it."""
    path = tmp_path / "good.qcow2"
    source = tmp_path / "source.raw"
    source.write_bytes(os.urandom(4 << 20) + bytes(4 << 20))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", source, path)
    return path


def patch(path: pathlib.Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(content)


def test_good_images_are_admitted(good: pathlib.Path, tmp_path: pathlib.Path) -> None:
    found = admit(good)
    assert found.virtual_size == 8 << 20
    assert found.format is QCOW2
    raw = admit(tmp_path / "source.raw", RAW)
    assert raw.virtual_size == 8 << 20


def test_compressed_qcow2_is_admitted(good: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Such files may end in the middle of a cluster, as those of distributions do."""
    path = tmp_path / "compressed.qcow2"
    qemu_img("convert", "-c", "-f", "qcow2", "-O", "qcow2", good, path)
    assert admit(path).virtual_size == 8 << 20


def test_backing_file(tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1 << 20))
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", secret, "-F", "raw", path)
    refused(path, f"backing file '{re.escape(str(secret))}'")


def test_data_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.qcow2"
    outside = tmp_path / "outside.raw"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={outside}", path, "1M")
    refused(path, "data file")


def test_backing_file_over_the_network_causes_no_connection(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.qcow2"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        qemu_img(
            "create", "-f", "qcow2", "-u", "-b", f"nbd://127.0.0.1:{port}", "-F", "raw", path, "1M"
        )
        server.settimeout(1.0)
        connections: list[object] = []

        def listen() -> None:
            with contextlib.suppress(TimeoutError):
                connections.append(server.accept())

        listener = threading.Thread(target=listen)
        listener.start()
        refused(path, "nbd://")
        listener.join()
    assert connections == []


def test_images_that_back_each_other_do_not_hang(tmp_path: pathlib.Path) -> None:
    first, second = tmp_path / "a.qcow2", tmp_path / "b.qcow2"
    qemu_img("create", "-f", "qcow2", "-u", "-b", second, "-F", "qcow2", first, "1M")
    qemu_img("create", "-f", "qcow2", "-u", "-b", first, "-F", "qcow2", second, "1M")
    refused(first, "backing file")


VMDK = b"""# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"
RW 2 FLAT "/etc/passwd" 0
"""


@pytest.mark.parametrize("format", [QCOW2, RAW])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (VMDK.ljust(1024), "a VMDK image"),
        (b"<!DOCTYPE html><title>404</title>".ljust(512), "a web page"),
        (b"\n <html>".ljust(512), "a web page"),
        (b"\xfd7zXZ\0".ljust(512, b"\0"), "a compressed file"),
        (b"LUKS\xba\xbe".ljust(512, b"\0"), "LUKS"),
        (b"conectix".ljust(512, b"\0"), "a VHD image"),
    ],
)
def test_other_kinds_of_file(
    tmp_path: pathlib.Path,
    format: DiskFormat,  # noqa: A002
    content: bytes,
    kind: str,
) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    refused(path, kind, format)


def test_raw_disk_with_the_header_of_a_qcow2(good: pathlib.Path) -> None:
    assert "format: qcow2" in refused(good, "is declared as raw but is a qcow2", RAW).hint


def test_empty_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    refused(path, "is empty")
    refused(path, "is empty", RAW)


def test_file_that_is_no_whole_number_of_sectors(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"abc")
    refused(path, "whole sectors", RAW)
    refused(path, "something else", QCOW2)


def test_broken_magic(good: pathlib.Path) -> None:
    patch(good, 0, b"QFX")
    refused(good, "declared as qcow2")


@pytest.mark.parametrize("size", [4, 72, 512, 1 << 16, 1 << 20, 4 << 20])
def test_truncated(good: pathlib.Path, size: int) -> None:
    os.truncate(good, size)
    refused(good, "damaged|no qcow2 image")


def test_corrupt_mark(good: pathlib.Path) -> None:
    patch(good, 72, struct.pack(">Q", 2))
    refused(good, "marked as corrupt")


def test_dirty_mark(good: pathlib.Path) -> None:
    patch(good, 72, struct.pack(">Q", 1))
    assert "qemu-img check" in refused(good, "not closed").hint


def test_refcounts_that_are_wrong(good: pathlib.Path) -> None:
    with good.open("rb") as stream:
        table = struct.unpack(">Q", os.pread(stream.fileno(), 8, 48))[0]
        block = struct.unpack(">Q", os.pread(stream.fileno(), 8, table))[0]
    patch(good, block, bytes(64))
    refused(good, "damaged|leaked")


def test_virtual_size(good: pathlib.Path) -> None:
    patch(good, 24, struct.pack(">Q", 0))
    refused(good, "size 0|damaged|no qcow2")
    patch(good, 24, struct.pack(">Q", gate.LARGEST + 512))
    refused(good, "at most|no qcow2|impossible size")


@pytest.mark.parametrize(
    ("offset", "content", "why"),
    [
        (4, struct.pack(">I", 4), "version 4"),
        (20, struct.pack(">I", 63), "impossible size"),
        (20, struct.pack(">I", 0), "impossible size"),
        (36, struct.pack(">I", 0xFFFFFFFF), "table of clusters"),
        (36, struct.pack(">I", 0), "table of clusters"),
        (40, struct.pack(">Q", 1 << 62), "not in the file"),
        (40, struct.pack(">Q", 1 << 40), "not in the file"),
        (40, struct.pack(">Q", 12345), "not in the file"),
        (48, struct.pack(">Q", 1 << 40), "not in the file"),
        (56, struct.pack(">I", 0xFFFF), "table of references"),
        (60, struct.pack(">IQ", 60_000, 1 << 16), "60000 snapshots"),
        (60, struct.pack(">IQ", 1, 1 << 40), "not in the file"),
        (72, struct.pack(">Q", 1 << 5), "features"),
        (72, struct.pack(">Q", 1 << 63), "features"),
        (96, struct.pack(">I", 99), "makes no sense"),
        (100, struct.pack(">I", 0), "makes no sense"),
        (100, struct.pack(">I", 0xFFFFFFF8), "damaged|no qcow2"),
    ],
)
def test_claims_of_the_header(good: pathlib.Path, offset: int, content: bytes, why: str) -> None:
    patch(good, offset, content)
    began = time.monotonic()
    refused(good, why)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("table", [40, 48], ids=["clusters", "references"])
def test_tables_that_lead_into_each_other(good: pathlib.Path, table: int) -> None:
    """Entries that name the header, the table itself, or places beyond the end of the file."""
    with good.open("rb") as stream:
        (place,) = struct.unpack(">Q", os.pread(stream.fileno(), 8, table))
    for target in (0x8000000000000000, 0x8000000000000000 | place, 1 << 54, 0xFFFFFFFFFFFFFFFF):
        patch(good, place, struct.pack(">Q", target))
        refused(good, "damaged|leaked|no qcow2")


def test_compressed_clusters_that_all_name_the_same_bytes(
    good: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A bomb: one compressed cluster stands for the whole disk."""
    bomb = tmp_path / "bomb.qcow2"
    qemu_img("convert", "-c", "-f", "qcow2", "-O", "qcow2", good, bomb)
    with bomb.open("rb") as stream:
        (l1,) = struct.unpack(">Q", os.pread(stream.fileno(), 8, 40))
        (l2,) = struct.unpack(">Q", os.pread(stream.fileno(), 8, l1))
        entry = os.pread(stream.fileno(), 8, l2 & 0x00FFFFFFFFFFFE00)
    patch(bomb, l2 & 0x00FFFFFFFFFFFE00, entry * 128)
    refused(bomb, "damaged|leaked")


def test_internal_snapshots_are_no_harm(good: pathlib.Path) -> None:
    qemu_img("snapshot", "-c", "before", good)
    assert admit(good).virtual_size == 8 << 20


@pytest.mark.parametrize("options", ["compat=0.10", "extended_l2=on,cluster_size=64k"])
def test_older_and_newer_forms_are_admitted(tmp_path: pathlib.Path, options: str) -> None:
    path = tmp_path / "other.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, "10G")
    assert admit(path).virtual_size == 10 << 30


def test_sparse_image_that_claims_too_much(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "large.qcow2"
    qemu_img("create", "-f", "qcow2", path, "100T")
    refused(path, f"at most {gate.LARGEST}")


def test_encrypted(good: pathlib.Path) -> None:
    patch(good, 32, struct.pack(">I", 1))
    refused(good, "encrypted")


def test_what_is_not_a_regular_file(tmp_path: pathlib.Path) -> None:
    refused(tmp_path, "not a regular file")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    refused(fifo, "not a regular file")
    refused(pathlib.Path("/dev/zero"), "not a regular file", RAW)


def test_no_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.NotFoundError):
        admit(tmp_path / "nothing")


def test_image_in_use(good: pathlib.Path) -> None:
    writer = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", good],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    try:
        assert writer.stdout
        assert b"qemu-io" in writer.stdout.read(64), "its prompt: the image is open"
        with pytest.raises(errors.ConflictError, match="in use"):
            admit(good)
    finally:
        writer.kill()
        writer.communicate()
    assert admit(good).virtual_size == 8 << 20
