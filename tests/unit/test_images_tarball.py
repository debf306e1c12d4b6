from __future__ import annotations

import io
import random
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.images.containers import device, directory, entry, file, hardlink, layer, symlink
from vmctl import errors
from vmctl.images import tarball
from vmctl.images.tarball import Archive, Kind, Member

LONG = "/".join(["directory-with-a-long-name"] * 12)
ENTRIES = [
    directory("d", uid=5, gid=6, mtime=7),
    file("d/a", b"content" * 100),
    file(LONG, b"long"),
    file("ü€", b"u"),
    symlink("s", LONG),
    hardlink("h", "d/a"),
    device("c", major=7, minor=300),
    file("big-uid", b"", uid=3_000_000, gid=3_000_001),
]


def members(data: bytes) -> list[tuple[Member, bytes]]:
    archive = Archive(io.BytesIO(data), "The archive")
    return [(member, b"".join(archive.content())) for member in archive]


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_reads_what_python_writes(format_: int) -> None:
    found = members(layer(*ENTRIES, format=format_))
    for (member, content), wanted in zip(found, ENTRIES, strict=True):
        info, expected = wanted if isinstance(wanted, tuple) else (wanted, b"")
        assert member.name.decode().rstrip("/") == info.name
        assert member.kind.value.encode() == info.type
        assert (member.mode, member.uid, member.gid) == (info.mode, info.uid, info.gid)
        assert member.target.decode() == info.linkname
        assert content == expected
    assert found[6][0].device == (7, 300)


def test_content_that_nobody_reads_is_skipped() -> None:
    archive = Archive(io.BytesIO(layer(*ENTRIES)), "The archive")
    assert len(list(archive)) == len(ENTRIES)


def test_place_of_content() -> None:
    data = layer(file("a", b"12345"), file("b", b"67"))
    places = {member.name: (member.place, member.size) for member, _ in members(data)}
    assert [data[place : place + size] for place, size in places.values()] == [b"12345", b"67"]


def test_links_and_directories_have_no_content() -> None:
    lying = entry("l", tarfile.SYMTYPE, linkname="x")
    data = bytearray(layer(lying, file("after", b"!")))
    data[124:136] = b"00000001000\0"
    checksum = sum(data[:148]) + 8 * 32 + sum(data[156:512])
    data[148:156] = b"%06o\0 " % checksum
    assert [(member.name, content) for member, content in members(bytes(data))] == [
        (b"l", b""),
        (b"after", b"!"),
    ]


def test_attributes_are_bytes() -> None:
    marked = entry("a", pax_headers={"SCHILY.xattr.user.x": "\udcff\0y"})
    ((member, _),) = members(layer(marked))
    assert member.xattrs == {b"user.x": b"\xff\0y"}


def test_numbers_of_gnu_may_be_large() -> None:
    data = bytearray(layer(file("a", b""), format=tarfile.GNU_FORMAT))
    data[124:136] = b"\x80" + (1 << 70).to_bytes(11, "big")
    checksum = sum(data[:148]) + 8 * 32 + sum(data[156:512])
    data[148:156] = b"%06o\0 " % checksum
    with pytest.raises(errors.RefusedError, match="cut short"):
        members(bytes(data))


def pax(text: bytes, flag: bytes = b"x") -> bytes:
    """Return an archive whose extended header has this content."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = flag, len(text)
    return info.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512) + layer(file("a"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (layer(file("a"))[:100], "cut short"),
        (layer(file("a", bytes(5000)))[:2000], "cut short"),
        (b"x" * 512, "no tar"),
        (layer(file("a")).replace(b"0000644", b"0000777", 1), "damaged"),
        (pax(b"99999 a=b\n"), "damaged extended"),
        (pax(b"0 a=b\n"), "damaged extended"),
        (pax(b"-5 a=b\n"), "damaged extended"),
        (pax(b"6 abc\n"), "damaged extended"),
        (pax(b"11 size=-1\n"), "impossible|cut short"),
        (pax(b"19 size=1e308xxxxx\n"), "impossible"),
        (pax(b"9 uid=-1\n"), "does not exist"),
        (pax(b"22 GNU.sparse.major=1\n"), "sparse"),
        (pax(b"13 path=a\0bc\n"), "no file can have"),
        (layer(entry("a", b"S")), "kind"),
        (layer(entry("a", b"V")), "kind"),
        (layer(file("a" * 5000)), "no file can have"),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    with pytest.raises(errors.RefusedError, match=reason):
        members(data)


def test_headers_without_end_are_refused() -> None:
    with pytest.raises(errors.RefusedError, match="extended header"):
        members(
            b"".join(pax(b"10 k%05d=\n" % number)[:1024] for number in range(99_999, 90_000, -1))
        )


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 40))
def test_damaged_archives_end_in_an_error_or_an_answer(seed: int, count: int) -> None:
    chance = random.Random(seed)
    data = bytearray(
        layer(*ENTRIES, format=chance.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    )
    for _ in range(count):
        data[chance.randrange(len(data))] = chance.randrange(256)
    for place in range(0, len(data), tarball.BLOCK):
        # A right checksum, so that more than the first check is tried.
        if data[place + 257 : place + 262] == b"ustar":
            header = data[place : place + 512]
            total = sum(header[:148]) + 8 * 32 + sum(header[156:])
            data[place + 148 : place + 156] = b"%06o\0 " % total
    try:
        found = members(bytes(data))
    except errors.RefusedError:
        return
    assert all(isinstance(member.kind, Kind) and member.size >= 0 for member, _ in found)
