from __future__ import annotations

import pathlib

from vmctl import errors
from vmctl.hypervisor import bulk
from vmctl.machine.state import State
from vmctl.runner import watch
from vmctl.runner.watch import Watch


class Machine:
    def __init__(self, log: pathlib.Path) -> None:
        self.log = log
        self.log.write_text("boot\n")
        self.state: State | errors.VmctlError = State.RUNNING
        self.reason = "why"
        self.pulled = 0
        self.watch = Watch("m", log, self._state, self._pull)

    def _state(self) -> tuple[State, str]:
        if isinstance(self.state, errors.VmctlError):
            raise self.state
        return self.state, self.reason

    def _pull(self) -> None:
        self.pulled += 1
        raise errors.HypervisorError("it is gone")

    def says(self, text: str) -> None:
        with self.log.open("a") as stream:
            stream.write(text)


def test_a_guest_that_goes_on_is_no_trouble(tmp_path: pathlib.Path) -> None:
    machine = Machine(tmp_path / "console.log")
    assert not any(machine.watch.trouble() for _ in range(12))


def test_a_panic_is_found_in_pieces_of_a_line(tmp_path: pathlib.Path) -> None:
    machine = Machine(tmp_path / "console.log")
    machine.says("[ 1.0] Kernel panic - not ")
    assert machine.watch.trouble() is None
    machine.says("syncing: sysrq triggered crash\r\n")
    problem = machine.watch.trouble()
    assert problem is not None
    assert "the guest panicked (Kernel panic - not syncing: sysrq" in problem.message
    assert "boot" in problem.details


def test_the_end_of_the_guest_is_trouble(tmp_path: pathlib.Path) -> None:
    for state, said in ((State.ABSENT, "QEMU was killed"), (State.CRASHED, "why")):
        machine = Machine(tmp_path / "console.log")
        machine.state = state
        problem = machine.watch.trouble()
        assert problem is not None and said in problem.message


def test_a_disk_that_cannot_be_written_is_trouble_and_a_pause_is_none(
    tmp_path: pathlib.Path,
) -> None:
    assert watch._UNWRITABLE in bulk.REASONS.values()
    machine = Machine(tmp_path / "console.log")
    machine.state, machine.reason = State.PAUSED, "paused by hand"
    assert machine.watch.ended() is None
    machine.reason = watch._UNWRITABLE
    problem = machine.watch.ended()
    assert problem is not None and "QEMU paused its guest: a disk cannot" in problem.message


def test_what_was_there_before_is_of_others(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "console.log"
    log.write_text("Kernel panic - not syncing: theirs\n")
    theirs = log.stat().st_size
    ours = Watch("m", log, lambda: (State.RUNNING, ""), lambda: None, since=theirs)
    assert ours.trouble() is None
    with log.open("a") as stream:
        stream.write("Kernel panic - not syncing: ours\n")
    problem = ours.trouble()
    assert problem is not None and "ours" in problem.message
    assert "theirs" not in problem.details


def test_a_daemon_that_is_away_is_none(tmp_path: pathlib.Path) -> None:
    machine = Machine(tmp_path / "console.log")
    machine.state = errors.HypervisorError("connection refused")
    assert machine.watch.trouble() is None


def test_the_plug_is_pulled_once(tmp_path: pathlib.Path) -> None:
    machine = Machine(tmp_path / "console.log")
    machine.watch.end()
    machine.watch.end()
    assert machine.pulled == 1
