"""Asks /dev/kvm the quick questions: API version, KVM_CREATE_VM, what guests are offered."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import stat
import struct

from vmctl.host import access, accounts
from vmctl.host.facts import DeviceNode, NestedCpuid

API_VERSION = 12
"""The one version there has been since Linux 2.6.22; anything else is no KVM for QEMU."""

_GET_API_VERSION = 0xAE00
_CREATE_VM = 0xAE01
_CHECK_EXTENSION = 0xAE03
_GET_SUPPORTED_CPUID = 0xC008AE05
_CAP_HYPERV, _CAP_X86_SMM, _CAP_NESTED_STATE = 44, 117, 157
_ENTRIES = 256


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What /dev/kvm said; None where it could not be asked, `create_vm_errno` is 0 for success."""

    api: int | None = None
    create_vm_errno: int | None = None
    nested_cpuid: NestedCpuid | None = None


def node(path: pathlib.Path) -> DeviceNode:
    """Return what stat(2) and open(2) say about a device node; opens no regular file."""
    try:
        status = path.stat()
    except OSError:
        return DeviceNode(path=str(path))
    character = stat.S_ISCHR(status.st_mode)
    return DeviceNode(
        path=str(path),
        present=True,
        character=character,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        owner=accounts.user_name(status.st_uid),
        group=accounts.group_name(status.st_gid),
        acl=access.acl(path),
        errno=_open_errno(path) if character else 0,
        device=status.st_rdev,
        ctime_ns=status.st_ctime_ns,
    )


def _open_errno(path: pathlib.Path) -> int:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as problem:
        return problem.errno or 0
    return 0


def ask(path: pathlib.Path) -> Answers:
    """Return KVM's answers; costs well under a millisecond on most hosts, and never raises."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return Answers()
    try:
        api = fcntl.ioctl(descriptor, _GET_API_VERSION, 0)
        return Answers(
            api=api,
            create_vm_errno=_create_vm(descriptor),
            nested_cpuid=_nested_cpuid(descriptor),
        )
    except OSError:
        return Answers(api=0)
    finally:
        os.close(descriptor)


def _create_vm(descriptor: int) -> int:
    try:
        os.close(fcntl.ioctl(descriptor, _CREATE_VM, 0))
    except OSError as problem:
        return problem.errno or 0
    return 0


def _capability(descriptor: int, number: int) -> int:
    try:
        return fcntl.ioctl(descriptor, _CHECK_EXTENSION, number)
    except OSError:
        return 0


def _nested_cpuid(descriptor: int) -> NestedCpuid:
    buffer = bytearray(8 + 40 * _ENTRIES)
    struct.pack_into("<II", buffer, 0, _ENTRIES, 0)
    vmx = svm = False
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, _GET_SUPPORTED_CPUID, buffer)
        count = min(struct.unpack_from("<I", buffer)[0], _ENTRIES)
        for index in range(count):
            fields = struct.unpack_from("<7I", buffer, 8 + 40 * index)
            function, ecx = fields[0], fields[5]
            vmx = vmx or (function == 1 and bool(ecx & 1 << 5))
            svm = svm or (function == 0x80000001 and bool(ecx & 1 << 2))
    return NestedCpuid(
        vmx=vmx,
        svm=svm,
        nested_state=_capability(descriptor, _CAP_NESTED_STATE),
        smm=_capability(descriptor, _CAP_X86_SMM) > 0,
        hyperv=_capability(descriptor, _CAP_HYPERV) > 0,
    )
