"""The archives of copies: read back what was written, and what GNU tar writes; refuse the rest."""

from __future__ import annotations

import io
import os
import pathlib
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmctl import errors
from vmctl.guest import archive
from vmctl.guest.archive import Entry, Kind, Reader

NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name)


def read(data: bytes, size: int = 1000) -> list[tuple[Entry, bytes]]:
    pieces = (data[place : place + size] for place in range(0, len(data), size))
    reader = Reader(pieces)
    return [(entry, b"".join(reader.content())) for entry in reader.entries()]


def written(*entries: tuple[Entry, bytes]) -> bytes:
    text = b""
    for entry, content in entries:
        text += archive.header(entry) + content + archive.padding(len(content))
    return text + archive.END


@given(name=NAMES, target=NAMES, content=st.binary(max_size=2000), mtime=st.integers(0, 2**40))
def test_read_back(name: bytes, target: bytes, content: bytes, mtime: int) -> None:
    file = Entry(name=name, kind=Kind.FILE, size=len(content), mode=0o640, mtime=mtime)
    link = Entry(name=name, kind=Kind.LINK, target=target)
    folder = Entry(name=name, kind=Kind.DIRECTORY, mode=0o755)
    got = read(written((file, content), (link, b""), (folder, b"")))
    assert got == [(file, content), (link, b""), (folder, b"")]


@given(
    st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=0, max_size=60), st.data()
)
def test_holes_read_back(steps: list[tuple[int, int]], data: st.DataObject) -> None:
    place, segments = 0, []
    for gap, length in steps:
        segments.append((place + gap, length))
        place += gap + length
    stored = sum(length for _, length in segments)
    content = data.draw(st.binary(min_size=stored, max_size=stored))
    entry = Entry(name=b"s", kind=Kind.FILE, size=place + 7, segments=tuple(segments))
    assert read(written((entry, content)), 333) == [(entry, content)]


def test_python_reads_what_is_written() -> None:
    name, target = b"d/" + b"n" * 200, b"t" * 150
    data = written(
        (Entry(name=name, kind=Kind.FILE, size=5, mode=0o755, mtime=7), b"hello"),
        (Entry(name=b"l", kind=Kind.LINK, target=target), b""),
        (Entry(name=b"s", kind=Kind.FILE, size=1 << 34, segments=((1 << 33, 3),)), b"abc"),
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        members = found.getmembers()
        content = found.extractfile(members[0])
        assert content is not None
        assert content.read() == b"hello"
    assert [each.name for each in members] == [name.decode(), "l", "s"]
    assert (members[0].mode, members[0].mtime) == (0o755, 7)
    assert members[1].linkname == target.decode()
    assert members[2].size == 1 << 34


@pytest.mark.allow_process
def test_gnu_tar_understands_and_is_understood(tmp_path: pathlib.Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    sparse = Entry(name=b"s", kind=Kind.FILE, size=8 << 20, segments=((4 << 20, 4096),))
    data = written((sparse, b"x" * 4096), (Entry(name=b"f", kind=Kind.FILE, size=1), b"y"))
    subprocess.run(["tar", "-x", "-C", there], input=data, check=True, timeout=60)
    found = (there / "s").stat()
    assert (found.st_size, (there / "f").read_bytes()) == (8 << 20, b"y")
    assert found.st_blocks * 512 < 1 << 20
    os.link(there / "f", there / "again")
    told = subprocess.run(
        ["tar", "-c", "--format=gnu", "--sparse", "-f", "-", "-C", there, "."],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    got = {entry.name: (entry, content) for entry, content in read(told)}
    entry, content = got[b"./s"]
    assert (entry.size, content.strip(b"\0")) == (8 << 20, b"x" * 4096)
    assert entry.stored < 1 << 20
    assert Kind.HARD_LINK in {got[b"./f"][0].kind, got[b"./again"][0].kind}


def header(**changes: object) -> bytes:
    facts: dict[str, object] = {"name": b"a", "kind": Kind.FILE}
    return archive.header(Entry(**{**facts, **changes}))  # type: ignore[arg-type]


def test_an_end_in_the_middle() -> None:
    whole = written((Entry(name=b"a", kind=Kind.FILE, size=700), b"x" * 700))
    for end in (0, 100, 512, 600, 1300, 1536):
        with pytest.raises(archive.EarlyEndError):
            read(whole[:end])


def test_names_without_an_end_are_refused() -> None:
    block = bytearray(archive._block(Entry(name=b"x", kind=Kind.FILE, size=1 << 40), b"L", b""))
    with pytest.raises(errors.RefusedError, match="64 KiB"):
        read(bytes(block))


def test_a_damaged_header_is_refused() -> None:
    block = bytearray(header())
    block[0] ^= 1
    with pytest.raises(errors.RefusedError, match="checksum"):
        read(bytes(block) + archive.END)
    with pytest.raises(errors.RefusedError):
        read(os.urandom(4096))


@pytest.mark.parametrize("segments", [((5, 10), (3, 4)), ((0, 1 << 40),)])
def test_maps_of_holes_that_make_no_sense(segments: tuple[tuple[int, int], ...]) -> None:
    entry = Entry(name=b"s", kind=Kind.FILE, size=100, segments=segments)
    with pytest.raises(errors.RefusedError, match="holes"):
        read(archive.header(entry) + bytes(20000))


@given(st.binary(max_size=3000))
def test_noise_is_refused_or_empty(data: bytes) -> None:
    try:
        read(data)
    except errors.RefusedError:
        return
    assert data.startswith(bytes(512))
