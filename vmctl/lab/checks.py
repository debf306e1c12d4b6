"""Says where a figure is not of the shape that the literature would let expect. Pure.

Notes only: no figure, ratio or verdict is changed by them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vmctl.lab import amount, caveat
from vmctl.lab.direct import MODE as HOST
from vmctl.lab.results import Contender, State
from vmctl.lab.summary import Cell, Row, Summary
from vmctl.lab.workload import Group


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """What was found; `within` says that it is of the expected shape."""

    text: str
    within: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """A ratio of two kinds of contenders in one workload: how many times as good `ours` is.

    Kinds are modes, or kvm and tcg for any mode with that accelerator. `suspect` is what to look at
    where it is otherwise. The bounds are those of facts that were measured by others (see
    docs/lab.md), and wide.
    """

    workload: str
    ours: str
    theirs: str
    low: float
    high: float
    source: str
    suspect: str


EXPECTATIONS = (
    Expectation(
        workload="cpu-integer",
        ours="kvm",
        theirs=HOST,
        low=0.95,
        high=1.05,
        source="Felter 2014: -2 to -3 %",
        suspect="topology, pinning, the governor, steal, or TCG in disguise",
    ),
    Expectation(
        workload="cpu-float",
        ours="kvm",
        theirs=HOST,
        low=0.95,
        high=1.05,
        source="Felter 2014: -2 %",
        suspect="topology, pinning, the governor, steal, or TCG in disguise",
    ),
    Expectation(
        workload="memory-read",
        ours="kvm",
        theirs=HOST,
        low=0.96,
        high=1.05,
        source="Felter 2014: -1 to -3 %",
        suspect="NUMA, or huge pages that are off",
    ),
    Expectation(
        workload="memory-random",
        ours="kvm",
        theirs=HOST,
        low=0.80,
        high=1.05,
        source="Felter 2014: -1 to -14 %",
        suspect="huge pages that are off, or no nested paging",
    ),
    Expectation(
        workload="cpu-integer",
        ours="tcg",
        theirs="kvm",
        low=1 / 20,
        high=1 / 3,
        source="two student reports: 1/10 to 1/20",
        suspect="above it KVM where TCG was asked for, below it a busy host",
    ),
    Expectation(
        workload="cpu-float",
        ours="tcg",
        theirs="kvm",
        low=1 / 70,
        high=1 / 10,
        source="a student report: 1/68 for Linpack",
        suspect="above it KVM where TCG was asked for, below it a busy host",
    ),
    Expectation(
        workload="cpu-integer",
        ours="tcg",
        theirs=HOST,
        low=1 / 30,
        high=1 / 2,
        source="two student reports: 1/10 to 1/20",
        suspect="a busy host, or a workload that is bound by something else",
    ),
    Expectation(
        workload="cpu-float",
        ours="tcg",
        theirs=HOST,
        low=1 / 80,
        high=1 / 10,
        source="a student report: 1/68 for Linpack",
        suspect="a busy host, or a workload that is bound by something else",
    ),
    Expectation(
        workload="disk-random",
        ours="kvm",
        theirs=HOST,
        low=0.3,
        high=1.0,
        source="Felter 2014: 0.42 to 0.51 at depth",
        suspect="above 1 a page cache that answers in place of the disk, below a busy host",
    ),
    Expectation(
        workload="disk-random",
        ours="tcg",
        theirs=HOST,
        low=0.02,
        high=1.0,
        source="a student report: 1/1.4 for writes",
        suspect="above 1 a page cache that answers in place of the disk, below a busy host",
    ),
    Expectation(
        workload="net-round-trip",
        ours="kvm",
        theirs=HOST,
        low=0.3,
        high=0.8,
        source="Felter 2014: +80 % with a bridge; SLIRP costs more",
        suspect="SLIRP, which is most of any figure of user networking",
    ),
)


def notes(found: Summary) -> Iterator[Note]:
    """Yield a note for each expectation that the comparison has both sides of, and general ones."""
    # What was published is of hardware.
    if not found.results.against_itself and not caveat.applies(found.results):
        for expectation in EXPECTATIONS:
            yield from _judged(found, expectation)
    yield from _surroundings(found)


def _judged(found: Summary, expectation: Expectation) -> Iterator[Note]:
    rows = [row for row in found.rows if row.workload.name == expectation.workload]
    for row in rows:
        for theirs in _kind(found, row, expectation.theirs)[:1]:
            for ours in _kind(found, row, expectation.ours):
                yield _note(row, ours, theirs, expectation)


def _note(row: Row, ours: Cell, theirs: Cell, expectation: Expectation) -> Note:
    factor = ours.median / theirs.median
    if row.workload.less_is_better:
        factor = 1 / factor
    within = expectation.low <= factor <= expectation.high
    text = (
        f"{row.workload.name}: {ours.contender} does {_share(factor)} of what {theirs.contender} "
        f"does; expected {_share(expectation.low)} to {_share(expectation.high)} "
        f"({expectation.source})"
    )
    return Note(text + ("." if within else f". Suspect {expectation.suspect}."), within)


def _share(factor: float) -> str:
    return f"{factor:.2f}" if factor >= 0.3 else f"1/{amount.digits(1 / factor)}"


def _kind(found: Summary, row: Row, kind: str) -> list[Cell]:
    """Return the cells of contenders of a kind that have a value."""
    fitting = [each.name for each in found.results.contenders if _fits(each, kind)]
    return [cell for cell in row.cells if cell.contender in fitting and cell.present]


def _fits(contender: Contender, kind: str) -> bool:
    return _took_part(contender) and kind in (contender.mode, contender.accel)


def _took_part(contender: Contender) -> bool:
    return contender.state is not State.REFUSED


def _surroundings(found: Summary) -> Iterator[Note]:
    host = found.results.host
    cores = int(host.get("cores") or 1)
    loads = [run.load for run in found.results.runs]
    if loads and sorted(loads)[len(loads) // 2] > cores:
        text = f"the host was busy: load {max(loads):g} at most, on {cores} cores. Figures of a "
        yield Note(f"{text}busy host say little.", within=False)
    if host and not host.get("store_bypasses_page_cache", True):
        text = "the store's file system takes no O_DIRECT: the host's page cache answers reads"
        yield Note(f"{text}, so that the disk rows do not measure a disk.", within=False)
    if host.get("virtual"):
        text = f"this host is itself a virtual machine ({host['virtual']}): its own exits, and "
        yield Note(f"{text}neighbours, are in all figures, those of the host too.", within=True)
    virtual = any(each.accel for each in found.results.contenders if _took_part(each))
    if virtual and any(row.workload.group is Group.NETWORK for row in found.rows):
        text = "network rows of VMs go through SLIRP, a TCP stack in QEMU: they compare cards, and"
        yield Note(f"{text} say nothing of a bridge with vhost.", within=True)
