"""Decides which disk images may be opened: an image is hostile until it is proven harmless.

A qcow2 or VMDK file can name any file of the host as its backing file, data file or extent, and
qemu-img and QEMU then read it. The order of the checks matters: nothing that follows a reference
runs before it is known that there is none.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from vmctl import errors
from vmctl.deadline import Deadline
from vmctl.images import header, qcow2
from vmctl.images.qcow2 import ImageInfo
from vmctl.machine.model import DiskFormat

LARGEST = 64 << 40
"""Largest virtual size accepted (bytes): also the largest disk that a spec can ask for."""

_HEADER_SIZE = 1024
_SECTOR = 512
_QCOW2_MAGIC = b"QFI\xfb"

_Test = Callable[[bytes], bool]


def _begins(*words: bytes) -> _Test:
    return lambda start: start.startswith(words)


_OTHER_KINDS: tuple[tuple[str, _Test], ...] = (
    ("a qcow2 image", _begins(_QCOW2_MAGIC)),
    ("a VMDK image", _begins(b"KDMV", b"COWD", b"# Disk DescriptorFile")),
    ("a VDI image", lambda start: start[64:68] == b"\x7f\x10\xda\xbe"),
    ("a VHDX image", _begins(b"vhdxfile")),
    ("a VHD image", _begins(b"conectix")),
    ("a QED image", _begins(b"QED\0")),
    ("a Parallels image", _begins(b"WithoutFreeSpace", b"WithouFreSpacExt")),
    ("an encrypted LUKS volume", _begins(b"LUKS\xba\xbe")),
    (
        "a compressed file",
        _begins(b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh", b"PK\3\4"),
    ),
    ("a web page", lambda start: start.lstrip()[:5].lower() in (b"<html", b"<!doc")),
)


def admit(path: str | os.PathLike[str], format: DiskFormat, deadline: Deadline) -> ImageInfo:  # noqa: A002
    """Return the facts of an image that may be opened.

    Raises RefusedError with the reason for one that may not, NotFoundError where there is no file,
    ConflictError while it is being written, HostError without qemu-img, WaitTimeoutError.
    """
    place = os.path.abspath(path)
    start, length = _check_header(place, format)
    if format is DiskFormat.QCOW2:
        wrong = header.complaint(start, length)
        if wrong:
            raise _refusal(place, wrong)
    try:
        known = qcow2.info(place, format, deadline)
    except errors.ProgramError as problem:
        raise _refusal(
            place, f"is no {format} image that QEMU can read", details=problem.details
        ) from None
    _check_references(known)
    _check_state(known)
    if format is DiskFormat.QCOW2:
        _check_structure(known, deadline)
    return known


def _refusal(place: str, what: str, *, hint: str = "", details: str = "") -> errors.RefusedError:
    hint = hint or "Fetch it again and compare its sha256 with the one that its maker publishes."
    return errors.RefusedError(f"The image '{place}' {what}.", hint=hint, details=details)


def _check_header(place: str, format: DiskFormat) -> tuple[bytes, int]:  # noqa: A002
    """Return the beginning and the length of a file that is what it is declared to be."""
    start, size = _read_header(place)
    if size == 0:
        raise _refusal(place, "is empty")
    kind = next((name for name, test in _OTHER_KINDS if test(start)), "")
    if format is DiskFormat.QCOW2 and not start.startswith(_QCOW2_MAGIC):
        raise _refusal(
            place,
            f"is declared as qcow2 but is {kind or 'something else'}",
            hint="" if kind == "a web page" else _declare_hint(place, kind),
        )
    if format is DiskFormat.RAW and kind:
        # QEMU would take it for that other kind if it were ever left to guess.
        raise _refusal(place, f"is declared as raw but is {kind}", hint=_declare_hint(place, kind))
    if format is DiskFormat.RAW and size % _SECTOR:
        raise _refusal(
            place, f"is no raw disk: its {size} bytes are not whole sectors of {_SECTOR}"
        )
    return start, size


def _declare_hint(place: str, kind: str) -> str:
    if kind == "a qcow2 image":
        return "Declare it as what it is: format: qcow2"
    if kind.endswith("image"):
        return f"Convert it, if you trust its source: qemu-img convert -O qcow2 '{place}' NEW.qcow2"
    if kind == "a compressed file":
        return f"Unpack it first (see: file '{place}')."
    return ""


def _read_header(place: str) -> tuple[bytes, int]:
    """Return the first bytes and the size; O_NONBLOCK because a FIFO would never open."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise errors.NotFoundError(f"There is no image '{place}'.") from None
    except OSError as problem:
        raise errors.HostError(f"Cannot read the image '{place}': {problem.strerror}.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(place, "is not a regular file", hint="Name the image file itself.")
        return os.pread(descriptor, _HEADER_SIZE, 0), status.st_size
    finally:
        os.close(descriptor)


def _check_references(known: ImageInfo) -> None:
    for what, name in (("backing file", known.backing), ("data file", known.data_file)):
        if name:
            raise _refusal(
                known.path,
                f"refers to another file, its {what} '{name}', which could be any file of this "
                "host",
                hint="If you trust its source, make one file of it: "
                f"qemu-img convert -f {known.format} -O qcow2 '{known.path}' NEW.qcow2",
            )


def _check_state(known: ImageInfo) -> None:
    if known.encrypted:
        raise _refusal(
            known.path, "is encrypted, which vmctl cannot use", hint="Decrypt it with qemu-img."
        )
    if known.corrupt:
        raise _refusal(known.path, "is marked as corrupt")
    if known.dirty:
        raise _refusal(
            known.path,
            "was not closed by the program that wrote it last",
            hint=f"Repair it: qemu-img check -f {known.format} -r leaks '{known.path}'",
        )
    if known.virtual_size <= 0:
        raise _refusal(known.path, "holds a disk of size 0")
    if known.virtual_size > LARGEST:
        raise _refusal(
            known.path,
            f"claims to hold a disk of {known.virtual_size} bytes; at most {LARGEST} are accepted",
        )


def _check_structure(known: ImageInfo, deadline: Deadline) -> None:
    """Look for damage; safe only now that the image is known to refer to no other file."""
    done = qcow2.run(
        ["check", "-f", known.format, "--output=json", known.path], deadline, check=False
    )
    if done.status == 3:
        raise _refusal(
            known.path,
            "has leaked clusters: a program was killed while it wrote",
            hint=f"Its data is whole. Repair it: qemu-img check -f qcow2 -r leaks '{known.path}'",
        )
    if done.status != 0:
        raise _refusal(known.path, "is damaged", details=done.complaint or done.text[-500:])
