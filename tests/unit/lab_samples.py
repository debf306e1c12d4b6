"""Made-up results of a comparison, for the tests of what is made from them."""

from __future__ import annotations

import random

from vmctl.lab import catalog
from vmctl.lab.results import Contender, Results, Run, Sample, State

COST = {"host": 1.0, "container": 1.0, "tcg-virtio": 12.0, "full": 14.0}


def made(
    rounds: int = 8, *, noise: float = 0.05, cost: dict[str, float] | None = None, seed: int = 1
) -> Results:
    """Return results in which each contender has a factor of its own in every row."""
    chance = random.Random(seed)
    factors = cost or COST
    results = Results(
        began="2026-01-02T03:04:05+00:00",
        seed=5,
        rounds=rounds,
        slice_seconds=0.1,
        baseline="host",
        vmctl="0.1.0",
        host={"name": "h", "cpu": "Some CPU", "cores": 4, "virtual": ""},
        workloads=tuple(each.name for each in catalog.WORKLOADS),
        contenders=[
            Contender(
                name=name,
                mode=name.split(" ")[0],
                accel="tcg" if name.startswith(("full", "tcg")) else "",
                isolation=("something <keeps> it apart",),
                xml="<domain type='qemu'/>" if name.startswith("full") else "",
                argv=("qemu", "-name", "guest=x y"),
            )
            for name in factors
        ],
    )
    for number in range(rounds + 1):
        for place, (name, factor) in enumerate(factors.items()):
            samples = [
                Sample(
                    workload=each.name,
                    value=100.0
                    * (factor if each.less_is_better else 1 / factor)
                    * chance.lognormvariate(0, noise)
                    * (50 if number == 0 else 1),
                    unit=each.unit,
                    operations=10,
                )
                for each in catalog.WORKLOADS
            ]
            results.runs.append(
                Run(
                    contender=name,
                    round=number,
                    place=place,
                    state=State.OK,
                    samples=tuple(samples),
                )
            )
    return results
