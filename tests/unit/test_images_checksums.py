"""Publishers' checksum files, honest and hostile."""

from __future__ import annotations

import hashlib
import pathlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmctl import errors
from vmctl.images import checksums
from vmctl.images.checksums import Digest, Kind

ONE = "1" * 64
TWO = "2" * 64
LONG = "a1" * 64
NAME = "disk.qcow2"
WHERE = "https://example.org/SUMS"


def expected(text: str | bytes, kind: Kind = Kind.SHA256, name: str = NAME) -> str:
    content = text if isinstance(text, bytes) else text.encode()
    return checksums.expected(content, name, kind, WHERE).value


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE}  {NAME}\n",
        f"{ONE} *{NAME}\n",
        f"{ONE}  ./{NAME}\n",
        f"{ONE.upper()}  {NAME}\r\n",
        f"{ONE}\t{NAME}",
        f"SHA256 ({NAME}) = {ONE}\n",
        f"SHA256({NAME})= {ONE}\n",
        f"sha-256 ({NAME}) = {ONE}\n",
        f"# {NAME}: 1234 bytes\nSHA256 ({NAME}) = {ONE}\n",
        f"{TWO}  other.qcow2\n{ONE}  {NAME}\n{TWO}  {NAME}.asc\n",
        f"{ONE}  {NAME}\n{ONE}  {NAME}\n",
        f"SHA512 ({NAME}) = {LONG}\nSHA256 ({NAME}) = {ONE}\n",
        f"{'3' * 32}  {NAME}\n{ONE}  {NAME}\n{LONG}  {NAME}\n",
        f"{ONE}\n",
        f"\n  {ONE.upper()}  \n\n",
        f"-----BEGIN PGP SIGNED MESSAGE-----\n\nSHA256 ({NAME}) = {ONE}\n-----BEGIN PGP SIGNATURE",
    ],
)
def test_forms_in_use(text: str) -> None:
    assert expected(text) == ONE


def test_names_are_taken_as_they_are() -> None:
    assert expected(f"\\{ONE}  a\\\\b\\nc\n", name="a\\b\nc") == ONE
    assert expected(f"{ONE}  with two  spaces.img\n", name="with two  spaces.img") == ONE
    assert expected(f"SHA256 (a) = b) = {ONE}\n", name="a) = b") == ONE
    assert expected(f"{ONE}  ümlaut.img\n", name="ümlaut.img") == ONE


def test_the_longer_kind() -> None:
    assert expected(f"{LONG}  {NAME}\n", Kind.SHA512) == LONG
    assert str(Digest(Kind.SHA512, LONG)) == f"sha512:{LONG}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        f"{ONE}  other.qcow2\n",
        f"{ONE}  {NAME}.sig\n",
        f"{ONE}  sub/{NAME}\n",
        f"{ONE}  ../{NAME}\n",
        f"{ONE}{NAME}\n",
        f"{ONE[:-1]}  {NAME}\n",
        f"{ONE}1  {NAME}\n",
        f"{LONG}  {NAME}\n",
        f"g{ONE[1:]}  {NAME}\n",
        f"MD5 ({NAME}) = {ONE}\n",
        f"SHA512 ({NAME}) = {ONE}\n",
        f"{ONE} {ONE}\n",
        f"{LONG}\n",
        f"{ONE}  {NAME}" + "x" * 5000,
        "\0" * 100,
        "<!DOCTYPE html><title>Login</title>",
    ],
)
def test_files_without_the_digest_are_refused(text: str) -> None:
    with pytest.raises(errors.RefusedError) as caught:
        expected(text)
    assert WHERE in caught.value.message


def test_two_digests_are_refused() -> None:
    for second in (f"{TWO}  {NAME}\n", f"SHA256 ({NAME}) = {TWO}\n", f"{TWO} *./{NAME}\n"):
        with pytest.raises(errors.RefusedError, match="2 different sha256 digests"):
            expected(f"{ONE}  {NAME}\n{second}")


def test_a_digest_alone_counts_only_where_it_is_alone() -> None:
    with pytest.raises(errors.RefusedError):
        expected(f"{ONE}\n{TWO}\n")
    assert expected(f"{ONE}\n", name="anything") == ONE
    with pytest.raises(errors.RefusedError):
        expected(f"{TWO}  other\n{ONE}\n")


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_give_a_digest(content: bytes) -> None:
    try:
        found = expected(content)
    except errors.RefusedError:
        return
    assert len(found) == 64


@given(
    st.lists(st.text(max_size=80), max_size=6),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Cs")), min_size=1),
)
def test_lines_around_change_nothing(around: list[str], name: str) -> None:
    lines = [line for text in around for line in text.splitlines() if name not in line]
    name = name.removeprefix("./")
    if not name or name.startswith(("./", "*")) or len(name) > 1000:
        return
    assert expected("\n".join([*lines, f"{ONE} *{name}", *lines]), name=name) == ONE


@pytest.mark.parametrize(
    "text",
    [
        "(" * 4_000_000,
        "SHA256 (" + ") = (" * 800,
        f"{'a' * 4000}\n" * 1000,
        f"{'1' * 64} " * 60000,
        "\n" * 4_000_000,
    ],
)
def test_hostile_files_cost_little(text: str) -> None:
    begun = time.monotonic()
    with pytest.raises(errors.RefusedError):
        expected(text)
    assert time.monotonic() - begun < 10


def test_a_file_is_read_once_for_all_kinds(tmp_path: pathlib.Path) -> None:
    content = b"x" * (3 << 20)
    path = tmp_path / "file"
    path.write_bytes(content)
    told: list[int] = []
    found = checksums.measure(path, set(Kind), told.append)
    assert found[Kind.SHA256].value == hashlib.sha256(content).hexdigest()
    assert found[Kind.SHA512].value == hashlib.sha512(content).hexdigest()
    assert told[-1] == len(content)
