"""What a qcow2 header claims, checked before any program follows it.

A header of a few bytes can claim tables of gigabytes, places beyond the file, or features that a
later QEMU gave a meaning to. qemu-img has bounds of its own, and runs within limits; this asks for
less than those would let pass. (Format: QEMU, docs/interop/qcow2.txt.)
"""

from __future__ import annotations

import struct

_BASIC = struct.Struct(">4sIQIIQIIQQIIQ")
_FEATURES = struct.Struct(">QQQII")
_SMALLEST_CLUSTER, _LARGEST_CLUSTER = 9, 21
_LARGEST_L1 = 32 << 20
_LARGEST_REFCOUNT_TABLE = 8 << 20
_MOST_SNAPSHOTS = 256
"""Nobody publishes an image with any; QEMU allows 65,536."""

_KNOWN = 0b11111
"""Incompatible features: dirty, corrupt, data file, compression type, subclusters."""

_LARGEST_REFCOUNT_ORDER = 6


def complaint(start: bytes, length: int) -> str:
    """Return what is wrong with a qcow2 header, or nothing.

    `start` is the beginning of the file, `length` its size in bytes. References, encryption and
    marks are not judged here: the gate has more to say of those.
    """
    if len(start) < _BASIC.size:
        return "is no qcow2 image: its header is cut short"
    fields = _BASIC.unpack_from(start)
    version, bits, size = fields[1], fields[4], fields[5]
    if version not in (2, 3):
        return f"is no qcow2 image that vmctl knows (version {version})"
    if not _SMALLEST_CLUSTER <= bits <= _LARGEST_CLUSTER:
        return "is damaged: its clusters have an impossible size"
    wrong = _features(start) if version > 2 else ""
    return wrong or _tables(fields, 1 << bits, size, length)


def _features(start: bytes) -> str:
    if len(start) < _BASIC.size + _FEATURES.size:
        return "is no qcow2 image: its header is cut short"
    incompatible, _, _, order, header = _FEATURES.unpack_from(start, _BASIC.size)
    if incompatible & ~_KNOWN:
        return "uses features that vmctl does not know"
    if order > _LARGEST_REFCOUNT_ORDER or header % 8 or header < _BASIC.size + _FEATURES.size:
        return "is damaged: its header makes no sense"
    return ""


def _tables(fields: tuple[int, ...], cluster: int, size: int, length: int) -> str:
    """Look whether the tables that the header names have possible sizes and lie in the file."""
    l1_entries, l1_place = fields[7], fields[8]
    refcount_place, refcount_clusters = fields[9], fields[10]
    snapshots, snapshots_place = fields[11], fields[12]
    # An L1 entry stands for one cluster full of L2 entries of eight bytes (or sixteen).
    needed = -(-size // (cluster * (cluster // 8)))
    if l1_entries * 8 > _LARGEST_L1 or l1_entries < needed:
        return "is damaged: its table of clusters has an impossible size"
    if refcount_clusters * cluster > _LARGEST_REFCOUNT_TABLE + cluster:
        return "is damaged: its table of references has an impossible size"
    if snapshots > _MOST_SNAPSHOTS:
        return f"holds {snapshots} snapshots; at most {_MOST_SNAPSHOTS} are accepted"
    places = [(l1_place, l1_entries * 8), (refcount_place, refcount_clusters * cluster)]
    places += [(snapshots_place, 1)] if snapshots else []
    for place, extent in places:
        if place % cluster or (extent and not cluster <= place <= length - extent):
            return "is damaged: it names places that are not in the file"
    return ""
