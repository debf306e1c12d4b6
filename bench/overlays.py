"""What an overlay costs: time and bytes, by the size of the base."""

from __future__ import annotations

import pathlib
import subprocess
import time

from bench.rounds import Contender, Group
from bench.site import Site

METRICS = ("made in_seconds", "on disk_bytes")
BARE = "qemu-img create"
SIZES = {"1 GiB": 1 << 30, "10 GiB": 10 << 30, "100 GiB": 100 << 30}
_DATA = 64 << 20
_BLOCK = 512


def group(site: Site) -> tuple[Group, list[Contender]]:
    """Return the contenders; bases are made in the site's store."""
    directory = site.home / "bench" / "overlays"
    directory.mkdir(parents=True, exist_ok=True)
    contenders, bases = [], {}
    for label, size in SIZES.items():
        base = directory / f"base-{size}.qcow2"
        if not base.exists():
            _make_base(base, size)
            _write_data(base)
        bases[label] = base
        contenders.append(
            Contender(f"vmctl's overlay on {label}", lambda base=base: _ours(base))  # type: ignore[misc]
        )
        contenders.append(
            Contender(_bare_name(label), lambda base=base: _bare(base))  # type: ignore[misc]
        )
    smallest = bases["1 GiB"]
    contenders.append(Contender("qemu-img convert", lambda: _copied(smallest)))
    notes = {each.name: "" for each in contenders}
    for label in SIZES:
        notes[_bare_name(label)] = "without vmctl's checks and fsync"
    notes["qemu-img convert"] = "a full copy of the 1 GiB base, of which 64 MiB hold data"
    title = "A machine's own disk"
    return Group(
        title=title, baseline=_bare_name("1 GiB"), metrics=METRICS, notes=notes
    ), contenders


def _bare_name(label: str) -> str:
    return f"{BARE} -b, {label}"


def _make_base(base: pathlib.Path, size: int) -> None:
    """Make a base whose tables are all there, as those of a full disk are."""
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata"]
    subprocess.run([*words, str(base), str(size)], check=True, capture_output=True, timeout=120)


def _write_data(base: pathlib.Path) -> None:
    command = ["qemu-io", "-f", "qcow2", "-c", f"write -P 0x5a 0 {_DATA}", str(base)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def _ours(base: pathlib.Path) -> dict[str, float]:
    from vmctl.images import qcow2
    from vmctl.machine.model import DiskFormat

    path = base.with_name("overlay.qcow2")
    began = time.monotonic()
    qcow2.create_overlay(path, base, DiskFormat.QCOW2, 0)
    return _cost(path, began)


def _bare(base: pathlib.Path) -> dict[str, float]:
    path = base.with_name("bare.qcow2")
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(path)]
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return _cost(path, began)


def _copied(base: pathlib.Path) -> dict[str, float]:
    path = base.with_name("copy.qcow2")
    began = time.monotonic()
    subprocess.run(
        ["qemu-img", "convert", "-O", "qcow2", str(base), str(path)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return _cost(path, began)


def _cost(path: pathlib.Path, began: float) -> dict[str, float]:
    took = time.monotonic() - began
    blocks = path.stat().st_blocks
    path.unlink()
    return {METRICS[0]: took, METRICS[1]: float(blocks * _BLOCK)}
