"""Where the time of a command goes: its stages, and the imports by package."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from bench import boot, importtime, staged
from bench.rounds import Group, Round
from bench.site import PATIENCE, BenchError, Site

TOTAL = "total"
METRIC = "own_seconds"
LISTED = 12


def up(boots: boot.Boots, count: int) -> Group:
    """Return the stages of `vmctl up --no-wait` until libvirt has started the guest."""
    command = ["up", "--no-wait", "-q", str(boots.spec)]
    title = f"Where the time of `vmctl up` goes until the guest runs, mode {boots.mode}"
    return _repeated(boots.site, title, command, count, boots.clear)


def ps(site: Site, count: int, machines: int) -> Group:
    """Return the stages of `vmctl ps --all`, to be run while `machines` are defined."""
    title = f"Where the time of `vmctl ps --all` goes with {machines} machines"
    return _repeated(site, title, ["ps", "--all"], count, lambda: None)


def imports(site: Site, words: Sequence[str], count: int) -> Group:
    """Return the time of importing, by package, as the interpreter itself measures it."""
    group = Group(
        title=f"Imports of `vmctl {words[0]}` by package",
        baseline=TOTAL,
        metrics=(METRIC,),
    )
    samples = []
    for _ in range(count + 1):
        command = [sys.executable, "-X", "importtime", "-m", "vmctl", *words]
        text = _run(site, command, {}).stderr
        samples.append(importtime.by_package(importtime.parse(text)))
    # The first one wrote the .pyc files.
    fill(group, samples[1:])
    return group


def _repeated(
    site: Site, title: str, words: Sequence[str], count: int, clear: Callable[[], None]
) -> Group:
    group = Group(title=title, baseline=TOTAL, metrics=(METRIC,))
    report = site.home / "bench" / "stages.json"
    report.parent.mkdir(exist_ok=True)
    samples = []
    for _ in range(count + 1):
        command = [sys.executable, "-m", "bench.staged", str(report), *words]
        try:
            _run(site, command, {"BENCH_BEGAN": repr(time.monotonic())})
            samples.append(json.loads(report.read_text()))
        finally:
            clear()
    fill(group, samples[1:])
    return group


def fill(group: Group, samples: Sequence[dict[str, float]]) -> None:
    """Put stages in as contenders, the longest first, so that their share is the ratio."""
    sums: Counter[str] = Counter()
    for sample in samples:
        sums.update(sample)
    sums[TOTAL] = 0
    listed = [name for name, _ in sums.most_common(LISTED) if name != TOTAL]
    for sample in samples:
        sample.setdefault(TOTAL, sum(sample.values()))
        own = {name: {METRIC: max(sample.get(name, 0.0), 1e-6)} for name in [*listed, TOTAL]}
        group.rounds.append(Round((), own))
    group.notes = dict.fromkeys([*listed, TOTAL], "")


def _run(site: Site, command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        env={**site.env, **env},
        cwd=staged.TOP,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return done
