from __future__ import annotations

import dataclasses

import pytest

from tests import replay
from vmctl.machine import change
from vmctl.machine.model import Machine
from vmctl.machine.observed import Observed
from vmctl.machine.state import State
from vmctl.machine.xml import domain


def running(defined: Machine, runs: Machine) -> Observed:
    """Return a machine that vmctl has changed up to its definition, and what libvirt shows."""
    current = domain.read(domain.write(defined, machine_type="pc-q35-7.2").text())
    live = domain.read(domain.write(runs, machine_type="pc-q35-7.2").text())
    live = dataclasses.replace(live, applied=current.digest, spare_ports=2)
    return Observed(name=defined.name, state=State.RUNNING, current=current, live=live, files=True)


@pytest.mark.parametrize(
    ("field", "defined", "by_hand", "said"),
    [
        ("memory", 128 << 20, 64 << 20, "memory: 128MiB -> 64MiB"),
        ("description", "", "of others", "description: nothing -> of others"),
        ("cdroms", ("/one.iso",), ("/two.iso",), "cdroms[/one.iso]: /one.iso -> /two.iso"),
        ("cdroms", ("/one.iso",), ("",), "cdroms[/one.iso]: /one.iso -> nothing"),
        ("cdroms", ("",), ("/two.iso",), "cdroms[/two.iso]: nothing -> /two.iso"),
    ],
)
def test_what_other_hands_changed_while_it_runs_is_always_named(
    field: str, defined: object, by_hand: object, said: str
) -> None:
    around = replay.surroundings(replay.host("kvm-intel-fine"))
    plain = replay.machines(replay.TEMPLATES / "disks.yaml", around)[0]
    machine = dataclasses.replace(plain, **{field: defined})  # type: ignore[arg-type]
    other = dataclasses.replace(machine, **{field: by_hand})  # type: ignore[arg-type]
    judged = change.judge(machine, running(machine, other))
    assert judged.drift == (f"while it runs, {said}",)
    assert (judged.live, judged.waiting) == ((), ())
    taken = change.judge(machine, running(machine, other), take_over=True)
    assert taken.drift == ()
    assert len(taken.live) == 1
