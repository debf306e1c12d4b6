"""`python -m bench`: measure, keep the raw samples, print the tables."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import pathlib
import random
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bench import host
from bench.results import DIRECTORY, Results
from bench.rounds import Contender, Group, measure

if TYPE_CHECKING:
    from bench.site import Site

PARTS = (
    "boot",
    "login",
    "run",
    "warm",
    "start",
    "ps",
    "many",
    "crowd",
    "stages",
    "overlay",
    "snapshot",
    "backup",
    "inside",
)
MODES = ("full", "tcg-virtio", "hardware", "paravirt")
QUICK = 2
CHEAP = 3
"""Rounds without a guest cost little; there are so many times more of them."""


def main() -> int:
    """Run what was asked for and return the exit status."""
    options = _options()
    if options.report:
        sys.stdout.write(Results.load(options.report).markdown())
        return 0
    from bench import site as sites

    results = Results(host=host.describe(options.connect), seed=options.seed)
    status = 0
    try:
        with sites.opened(options.store, options.connect) as site:
            tell("building the image")
            site.call(*site.vmctl, "image", "build", "tiny")
            for group in _Bench(site, options, results).groups():
                sys.stdout.write(Results({}, options.seed, [group]).tables())
                sys.stdout.flush()
    except sites.BenchError as problem:
        sys.stderr.write(f"Error: {problem}\n")
        status = 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; what was made is removed.\n")
        status = 130
    results.host["load average after"] = host.load()
    results.save(options.output)
    tell(f"raw samples: {options.output}")
    tell(f"tables again: python -m bench --report {options.output}")
    return status


def tell(text: str) -> None:
    """Say what is going on."""
    sys.stderr.write(f"[{dt.datetime.now(dt.UTC):%H:%M:%S}] {text}\n")


class _Bench:
    """The parts in their order."""

    def __init__(self, site: Site, options: argparse.Namespace, results: Results) -> None:
        self.site = site
        self.options = options
        self.results = results
        self.chance = random.Random(options.seed)

    def groups(self) -> Iterator[Group]:
        """Measure and yield one group after the other."""
        chosen: Sequence[str] = self.options.only or PARTS
        for part in PARTS:
            if part in chosen:
                yield from getattr(self, f"_{part}")()

    def _boot(self) -> Iterator[Group]:
        from bench import boot

        for mode in self.options.modes:
            boots = boot.Boots(self.site, mode)
            contenders = boots.contenders(peers=not self.options.quick)
            yield self._measured(boots.group(contenders), contenders, self.options.rounds)

    def _login(self) -> Iterator[Group]:
        from bench import login

        tell(f"building the image {login.IMAGE}")
        self.site.call(*self.site.vmctl, "image", "build", login.IMAGE)
        for mode in self.options.modes:
            yield self._measured(*login.Logins(self.site, mode).measured(), self.options.rounds)

    def _run(self) -> Iterator[Group]:
        from bench import run

        for mode in self.options.modes:
            yield self._measured(*run.Colds(self.site, mode).measured(), self.options.rounds)

    def _start(self) -> Iterator[Group]:
        from bench import starting

        yield self._measured(*starting.help_page(self.site), self.options.rounds * CHEAP)

    def _ps(self) -> Iterator[Group]:
        from bench import population, stages, starting

        machines = self.options.machines
        tell(f"defining {machines} machines")
        with population.defined(self.site, machines):
            listing = starting.listing(self.site, machines)
            yield self._measured(*listing, self.options.rounds * CHEAP)
            tell("the stages of ps")
            yield self._kept(stages.ps(self.site, self.options.rounds, machines))
            tell(f"removing {machines} machines")
        tell("the imports of ps")
        yield self._kept(stages.imports(self.site, ["ps", "--all"], self.options.rounds))

    def _many(self) -> Iterator[Group]:
        from bench import crowd, many

        machines = self.options.machines
        sizes = [max(2, machines // 4), max(3, machines // 2), max(4, machines)]
        running = crowd.Crowd(self.site, max(1, machines // 10))
        groups = []
        tell(f"starting {running.count} machines")
        with many.populated(self.site, running, sizes) as populations:
            for size in populations:
                listing = many.listing(self.site, running, size)
                groups.append(self._measured(*listing, self.options.rounds * CHEAP))
                yield groups[-1]
            yield self._measured(*many.unchanged(self.site, running, size), self.options.rounds)
            tell(f"removing {size} machines")
        yield self._kept(many.slope(groups, sizes))

    def _crowd(self) -> Iterator[Group]:
        from bench import crowd

        measured = crowd.Crowd(self.site, self.options.crowd).measured()
        yield self._measured(*measured, self.options.rounds)

    def _stages(self) -> Iterator[Group]:
        from bench import boot, stages

        for mode in self.options.modes:
            tell(f"the stages of up, mode {mode}")
            boots = boot.Boots(self.site, mode)
            yield self._kept(stages.up(boots, self.options.rounds))
        tell("the imports of up")
        words = ["up", "--dry-run", str(boots.spec)]
        yield self._kept(stages.imports(self.site, words, self.options.rounds))

    def _overlay(self) -> Iterator[Group]:
        from bench import overlays

        yield self._measured(*overlays.group(self.site), self.options.rounds)

    def _snapshot(self) -> Iterator[Group]:
        from bench import snapshot

        for prepared in snapshot.groups(self.site):
            yield self._measured(*prepared(), self.options.rounds)

    def _backup(self) -> Iterator[Group]:
        from bench import backup

        for prepared in backup.groups(self.site):
            yield self._measured(*prepared(), self.options.rounds)

    def _warm(self) -> Iterator[Group]:
        from bench import warm

        tell("making a pool")
        with warm.Warm(self.site).prepared() as measured:
            yield self._measured(*measured, self.options.rounds)

    def _inside(self) -> Iterator[Group]:
        from bench import inside

        for mode in self.options.modes:
            with inside.running(self.site, mode) as measured:
                yield self._measured(*measured, self.options.rounds)

    def _measured(self, group: Group, contenders: Sequence[Contender], count: int) -> Group:
        self._kept(group)
        measure(group, contenders, count, self.chance, tell)
        return group

    def _kept(self, group: Group) -> Group:
        self.results.groups.append(group)
        return group


def _options() -> argparse.Namespace:
    from vmctl.hypervisor import connection as connections

    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help=f"{QUICK} rounds (too few for an interval), one mode, fewer contenders",
    )
    add("--rounds", type=int, default=10, help="rounds of each group (start, ps: three times that)")
    add("--only", action="append", choices=PARTS, help="only this part; may be repeated")
    add("--modes", nargs="+", choices=MODES, default=["full", "tcg-virtio"])
    add("--machines", type=int, default=200, help="how many machines `ps` lists")
    add("--crowd", type=int, default=40, help="how many machines are started at once")
    add("--store", type=pathlib.Path, help="keep the image here between runs; default: a new store")
    add("--connect", default=connections.default_uri(), help="libvirt URI")
    add("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="decides the orders")
    add("--report", type=pathlib.Path, metavar="FILE", help="print the tables of a run again")
    moment = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d-%H%M%S")
    add("--output", type=pathlib.Path, default=DIRECTORY / f"{moment}.json")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.modes = QUICK, options.modes[:1]
    if min(options.rounds, options.machines, options.crowd) < 1:
        parser.error("there must be at least one round and one machine")
    return options


if __name__ == "__main__":
    sys.exit(main())
