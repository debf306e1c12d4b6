"""Who runs vmctl, and who QEMU runs as under qemu:///system."""

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import re

from vmctl.host import access, reading
from vmctl.host.facts import DeviceNode, QemuUser, User

_SETTING = re.compile(r"""^\s*(user|group)\s*=\s*["']([^"']*)["']""", re.MULTILINE)
_USUAL_ACCOUNTS = ("libvirt-qemu", "qemu")


def group_name(gid: int) -> str:
    """Return the name of a group, its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)


def user_name(uid: int) -> str:
    """Return the name of an account, its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def current_user() -> User:
    """Return the user of this process, with active groups and those of the database."""
    uid = os.geteuid()
    name = user_name(uid)
    active = {os.getegid(), *os.getgroups()}
    try:
        in_database = set(os.getgrouplist(name, pwd.getpwuid(uid).pw_gid))
    except (KeyError, OSError):
        in_database = set()
    return User(uid=uid, name=name, groups=_names(active), groups_in_database=_names(in_database))


def _names(gids: set[int]) -> tuple[str, ...]:
    return tuple(sorted(group_name(gid) for gid in gids))


def qemu_user(root: pathlib.Path, kvm_node: DeviceNode) -> QemuUser | None:
    """Return the account of qemu.conf, else the usual one; None where there is no such account."""
    # qemu.conf is readable by root alone on most distributions; the defaults are then right.
    settings = dict(_SETTING.findall(reading.text(root / "etc/libvirt/qemu.conf")))
    named = settings.get("user", "")
    entry = next(filter(None, map(_account, [named] if named else _USUAL_ACCOUNTS)), None)
    if entry is None:
        return None
    gid = _gid(settings.get("group", ""), entry.pw_gid)
    # As libvirt's virGetGroupList: the account's groups, its login group too, and the one set.
    gids = tuple(sorted({gid, entry.pw_gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)}))
    return QemuUser(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=gid,
        gids=gids,
        groups=_names(set(gids)),
        opens_kvm=kvm_node.present
        and access.allows(
            mode=kvm_node.mode,
            owner=kvm_node.uid,
            group=kvm_node.gid,
            entries=kvm_node.acl,
            uid=entry.pw_uid,
            gids=gids,
            wanted=access.READ | access.WRITE,
        ),
    )


def _account(name: str) -> pwd.struct_passwd | None:
    """Return the account called `name`; '+0' and '0' are numbers, as in qemu.conf."""
    number = name.removeprefix("+")
    try:
        return pwd.getpwuid(int(number)) if number.isdigit() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        return None


def _gid(name: str, default: int) -> int:
    number = name.removeprefix("+")
    if number.isdigit():
        return int(number)
    try:
        return grp.getgrnam(name).gr_gid if name else default
    except KeyError:
        return default
