"""Whether an account may open a file: mode, owner, groups and POSIX ACL, as the kernel decides."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection

from vmctl.host.facts import AclEntry

READ, WRITE, ENTER = 4, 2, 1

_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_XATTR = "system.posix_acl_access"


def acl(path: str | os.PathLike[str]) -> tuple[AclEntry, ...]:
    """Return the ACL of a file, empty where it has none beyond its mode."""
    try:
        data = os.getxattr(path, _XATTR)
    except OSError:
        return ()
    body = data[4 : 4 + (len(data) - 4) // 8 * 8]
    return tuple(
        AclEntry(tag=tag, permissions=permissions, id=identity)
        for tag, permissions, identity in struct.iter_unpack("<HHI", body)
    )


def allows(
    *,
    mode: int,
    owner: int,
    group: int,
    entries: Collection[AclEntry],
    uid: int,
    gids: Collection[int],
    wanted: int,
) -> bool:
    """Tell whether the account (uid, gids) gets `wanted`; the algorithm is that of acl(5)."""
    if uid == 0:
        return True
    if uid == owner:
        return (mode >> 6) & wanted == wanted
    if not entries:
        return (mode >> (3 if group in gids else 0)) & wanted == wanted
    mask = next((entry.permissions for entry in entries if entry.tag == _MASK), 7)
    for entry in entries:
        if entry.tag == _USER and entry.id == uid:
            return entry.permissions & mask & wanted == wanted
    of_groups = [
        entry.permissions & mask
        for entry in entries
        if (entry.tag == _GROUP_OBJ and group in gids) or (entry.tag == _GROUP and entry.id in gids)
    ]
    if of_groups:
        return any(permissions & wanted == wanted for permissions in of_groups)
    return mode & wanted == wanted


def may(path: str | os.PathLike[str], uid: int, gids: Collection[int], wanted: int) -> bool:
    """Tell whether the account gets `wanted` on an existing file; False where it cannot be seen."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return allows(
        mode=status.st_mode,
        owner=status.st_uid,
        group=status.st_gid,
        entries=acl(path),
        uid=uid,
        gids=gids,
        wanted=wanted,
    )
