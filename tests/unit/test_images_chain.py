from __future__ import annotations

import os
import pathlib
import struct

import pytest

from vmctl import errors
from vmctl.images import chain
from vmctl.machine.model import DiskFormat

MIB = 1 << 20


def qcow2(
    path: pathlib.Path,
    backing: str = "",
    format: str = "qcow2",  # noqa: A002
    *,
    version: int = 3,
    offset: int | None = None,
    length: int | None = None,
) -> pathlib.Path:
    """Write no more than a header."""
    name = os.fsencode(backing)
    extension = struct.pack(">II", 0xE2792ACA, len(format)) + format.encode()
    extension += bytes(-len(format) % 8) + bytes(8)
    place = (104 + len(extension) if backing else 0) if offset is None else offset
    said = len(name) if length is None else length
    header = b"QFI\xfb" + struct.pack(
        ">IQIIQIIQQIIQ", version, place, said, 16, 10 * MIB, 0, 0, 0, 0, 0, 0, 0
    )
    header += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    path.write_bytes((header + extension + name).ljust(1024, b"\0"))
    return path


@pytest.fixture
def store(tmp_path: pathlib.Path) -> pathlib.Path:
    store = tmp_path / "store"
    store.mkdir()
    return store


def test_follows_to_the_base(store: pathlib.Path) -> None:
    base = store / "disk.raw"
    base.write_bytes(bytes(4096))
    middle = qcow2(store / "middle.anything", str(base), "raw")
    top = qcow2(store / "top.qcow2", middle.name)
    found = chain.follow(top, store)
    assert not found.problem
    assert [link.path for link in found.links] == [str(top), str(middle), str(base)]
    assert found.links[0].size == 10 * MIB
    assert found.base.size == 4096
    assert found.own == sum(os.stat(path).st_blocks * 512 for path in (top, middle))
    chain.refuse_long(top, store, DiskFormat.QCOW2)


def test_a_raw_base_is_not_looked_into(store: pathlib.Path) -> None:
    secret = qcow2(store / "other.qcow2")
    lying = qcow2(store / "disk.raw", str(secret))
    top = qcow2(store / "top.qcow2", str(lying), "raw")
    assert [link.path for link in chain.follow(top, store).links] == [str(top), str(lying)]
    assert [link.path for link in chain.follow(lying, store, DiskFormat.RAW).links] == [str(lying)]
    chain.refuse_long(lying, store, DiskFormat.RAW)


@pytest.mark.parametrize(
    "reference",
    [
        "/etc/passwd",
        "../../etc/passwd",
        "../store-beside/x.qcow2",
        "nbd://127.0.0.1/x",
        "json:{}",
        "file:top.qcow2",
        "fd:3",
    ],
)
def test_nothing_outside_the_store_is_opened(
    store: pathlib.Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = store.parent / "store-beside"
    beside.mkdir()
    qcow2(beside / "x.qcow2")
    top = qcow2(store / "top.qcow2", reference)
    opened = []
    real = os.open

    def watched(path: str, *rest: int, **more: int) -> int:
        opened.append(path)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", watched)
    found = chain.follow(top, store)
    assert "outside the store" in found.problem
    assert opened == [str(top)]
    with pytest.raises(errors.RefusedError, match="outside the store"):
        chain.refuse_long(top, store, DiskFormat.QCOW2)


def test_loops_end(store: pathlib.Path) -> None:
    one, two = store / "one.qcow2", store / "two.qcow2"
    qcow2(one, str(two))
    qcow2(two, str(one))
    assert "below itself" in chain.follow(one, store).problem


def test_chains_are_bounded(store: pathlib.Path) -> None:
    below = qcow2(store / "0.qcow2")
    for number in range(1, chain.LONGEST + 1):
        if number == chain.LONGEST:
            with pytest.raises(errors.ConflictError, match="16 files below one another"):
                chain.refuse_long(below, store, DiskFormat.QCOW2)
        below = qcow2(store / f"{number}.qcow2", str(below))
    found = chain.follow(below, store)
    assert "more than 16" in found.problem
    assert len(found.links) == chain.LONGEST


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 4},
        {"offset": 20},
        {"offset": 1 << 40},
        {"length": 2000},
        {"length": 0},
        {"offset": 1020, "length": 1000},
    ],
)
def test_damaged_headers_are_told(store: pathlib.Path, damage: dict[str, int]) -> None:
    top = qcow2(store / "top.qcow2", "x.qcow2", **damage)  # type: ignore[arg-type]
    assert "damaged header" in chain.follow(top, store).problem


def test_files_that_are_none(store: pathlib.Path) -> None:
    base = qcow2(store / "base.qcow2")
    link = store / "link.qcow2"
    link.symlink_to(base)
    os.mkfifo(store / "fifo.qcow2")
    (store / "short.qcow2").write_bytes(b"QFI\xfb")
    top = qcow2(store / "unknown.qcow2", str(base), "vmdk")
    assert "cannot be read" in chain.follow(link, store).problem
    assert "not a regular file" in chain.follow(store / "fifo.qcow2", store).problem
    assert "no qcow2" in chain.follow(store / "short.qcow2", store).problem
    assert "cannot be read" in chain.follow(store / "absent.qcow2", store).problem
    assert "no format" in chain.follow(top, store).problem
