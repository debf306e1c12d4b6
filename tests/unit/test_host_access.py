"""The permission algorithm of acl(5), case by case."""

from __future__ import annotations

import os
import pathlib
import struct

import pytest

from vmctl.host import access
from vmctl.host.facts import AclEntry

READ_WRITE = access.READ | access.WRITE
NOBODY = 0xFFFFFFFF


def entry(tag: int, permissions: int, identity: int = NOBODY) -> AclEntry:
    return AclEntry(tag=tag, permissions=permissions, id=identity)


def allowed(mode: int, uid: int, gids: set[int], *entries: AclEntry) -> bool:
    return access.allows(
        mode=mode, owner=100, group=108, entries=entries, uid=uid, gids=gids, wanted=READ_WRITE
    )


@pytest.mark.parametrize(
    ("mode", "uid", "gids", "expected"),
    [
        (0o660, 1000, {108}, True),
        (0o660, 1000, {109}, False),
        (0o666, 1000, {109}, True),
        (0o606, 1000, {108}, False),  # the group's bits decide for its members
        (0o066, 100, {108}, False),  # the owner's bits decide for the owner
        (0o600, 100, set(), True),
        (0o640, 1000, {108}, False),
        (0o000, 0, set(), True),
    ],
)
def test_mode(mode: int, uid: int, gids: set[int], expected: bool) -> None:
    assert allowed(mode, uid, gids) is expected


BASE = (entry(0x01, 6), entry(0x04, 0), entry(0x20, 0))


def test_acl_names_a_user() -> None:
    assert allowed(0o660, 1000, set(), *BASE, entry(0x02, 6, 1000), entry(0x10, 6))
    assert not allowed(0o660, 1001, set(), *BASE, entry(0x02, 6, 1000), entry(0x10, 6))


def test_mask_limits_a_named_user() -> None:
    assert not allowed(0o640, 1000, set(), *BASE, entry(0x02, 6, 1000), entry(0x10, 4))


def test_acl_names_a_group() -> None:
    assert allowed(0o660, 1000, {200}, *BASE, entry(0x08, 6, 200), entry(0x10, 6))
    # A member of an entry without rights does not fall through to the others.
    entries = (entry(0x01, 6), entry(0x04, 0), entry(0x20, 6), entry(0x08, 0, 200), entry(0x10, 6))
    assert not allowed(0o666, 1000, {200}, *entries)


def test_acl_is_read_from_a_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "node"
    path.touch(0o600)
    assert access.acl(path) == ()
    wanted = (entry(0x01, 6), entry(0x02, 6, 64055), entry(0x04, 0), entry(0x10, 6), entry(0x20, 0))
    data = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", each.tag, each.permissions, each.id) for each in wanted
    )
    try:
        os.setxattr(path, "system.posix_acl_access", data)
    except OSError:
        # Without ACLs in the file system there is nothing to read, and that is what comes back.
        assert access.acl(path) == ()
        return
    assert access.acl(path) == wanted
    assert access.may(path, 64055, set(), READ_WRITE)
    assert not access.may(path, 64056, set(), READ_WRITE)


def test_what_cannot_be_seen_is_closed(tmp_path: pathlib.Path) -> None:
    assert not access.may(tmp_path / "missing", 1000, set(), access.READ)
