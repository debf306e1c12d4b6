from __future__ import annotations

import pathlib
import subprocess

import pytest

from vmctl import errors
from vmctl.guest import remote, shell, ssh
from vmctl.guest.landing import Summary
from vmctl.guest.remote import Streams
from vmctl.guest.ssh import Access
from vmctl.runner import job
from vmctl.runner.job import Copy, Job, Outcome
from vmctl.runner.timings import Stage, Timings

ACCESS = Access(
    name="m",
    host="127.0.0.1",
    port=1,
    user="root",
    key=pathlib.Path("/nosuch"),
    known_hosts=pathlib.Path("/nosuch"),
    alias="m",
)
QUIET = Streams(stdin=None, stdout=lambda _: None, stderr=lambda _: None)
PANIC = errors.GuestError("the guest panicked")


class Guard:
    def __init__(self, problem: errors.VmctlError | None) -> None:
        self.problem = problem
        self.ended = 0

    def trouble(self) -> errors.VmctlError | None:
        return self.problem

    def end(self) -> None:
        self.ended += 1


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(ssh, "disconnect", lambda access: told.append(access.name))
    return told


def having(monkeypatch: pytest.MonkeyPatch, ends: int | errors.VmctlError) -> None:
    """Let the command end in a way, after a byte of output."""

    def run(_access: Access, _request: object, streams: Streams, **_: object) -> int:
        streams.stdout(b"x")
        if isinstance(ends, errors.VmctlError):
            raise ends
        return ends

    monkeypatch.setattr(remote, "run", run)


def test_the_status_is_the_commands(
    monkeypatch: pytest.MonkeyPatch, connections: list[str]
) -> None:
    having(monkeypatch, 37)
    timings = Timings()
    outcome = job.carry_out(ACCESS, Job(argv=("x",)), QUIET, timings=timings)
    assert (outcome.status, outcome.problem, outcome.failed) == (37, None, False)
    assert Stage.COMMAND in timings.seconds and timings.first_output is not None
    assert connections == []


def test_a_timeout_is_the_commands_fault(
    monkeypatch: pytest.MonkeyPatch, connections: list[str]
) -> None:
    having(monkeypatch, remote.CommandTimeoutError("too late"))
    outcome = job.carry_out(ACCESS, Job(argv=("x",), timeout=1), QUIET)
    assert (outcome.status, outcome.timed_out, outcome.failed) == (124, True, False)


def test_a_lost_connection_is_explained_by_the_machine(
    monkeypatch: pytest.MonkeyPatch, connections: list[str]
) -> None:
    having(monkeypatch, errors.VmctlError("the connection ended"))
    outcome = job.carry_out(ACCESS, Job(argv=("x",)), QUIET, guard=Guard(PANIC))
    assert (outcome.status, outcome.problem, outcome.failed) == (125, PANIC, True)


def test_trouble_ends_what_goes_on(monkeypatch: pytest.MonkeyPatch, connections: list[str]) -> None:
    guard = Guard(PANIC)

    def run(*_: object, **__: object) -> int:
        while not connections:
            pass
        raise errors.VmctlError("the connection ended")

    monkeypatch.setattr(remote, "run", run)
    outcome = job.carry_out(ACCESS, Job(argv=("x",)), QUIET, guard=guard)
    assert (outcome.status, outcome.problem) == (125, PANIC)
    assert guard.ended and connections


def test_an_interruption_passes_through(
    monkeypatch: pytest.MonkeyPatch, connections: list[str]
) -> None:
    def run(*_: object, **__: object) -> int:
        while not connections:
            pass
        raise errors.VmctlError("the connection ended")

    monkeypatch.setattr(remote, "run", run)
    with pytest.raises(errors.InterruptError):
        job.carry_out(ACCESS, Job(argv=("x",)), QUIET, cancelled=lambda: True)


@pytest.mark.parametrize(("status", "ends"), [(0, 125), (3, 3)])
def test_a_missing_file_counts_only_after_success(
    monkeypatch: pytest.MonkeyPatch, connections: list[str], status: int, ends: int
) -> None:
    having(monkeypatch, status)

    def missing(*_: object) -> None:
        raise errors.NotFoundError("there is none")

    monkeypatch.setattr(job.copy, "from_guest", missing)
    wanted = Job(argv=("x",), copies_out=(Copy("/a", "/tmp"), Copy("/b", "/tmp")))
    outcome = job.carry_out(ACCESS, wanted, QUIET)
    assert outcome.status == ends
    assert len(outcome.remarks) == 2
    if outcome.problem is not None:
        assert outcome.problem.message == outcome.remarks[0]
        assert outcome.remarks[0] == "'/a' was not copied out: there is none"


@pytest.mark.parametrize("limit", ["STALL_SECONDS", "COPY_SECONDS"])
def test_a_copy_that_gets_nowhere_is_ended(
    monkeypatch: pytest.MonkeyPatch, connections: list[str], limit: str
) -> None:
    having(monkeypatch, 0)
    monkeypatch.setattr(job, limit, 0.2)
    guard = Guard(None)

    def stalls(way: job.copy.Way, source: str, _target: pathlib.Path) -> Summary:
        if source == "/quick":
            return Summary()
        while not way.stop.asked:
            if limit == "COPY_SECONDS":
                way.told(1, 0)
        raise errors.VmctlError("the connection ended")

    monkeypatch.setattr(job.copy, "from_guest", stalls)
    wanted = Job(argv=("x",), copies_out=(Copy("/a", "/tmp"), Copy("/quick", "/tmp")))
    outcome = job.carry_out(ACCESS, wanted, QUIET, guard=guard)
    assert isinstance(outcome.problem, errors.WaitTimeoutError)
    assert (outcome.status, len(outcome.remarks)) == (125, 1)
    assert "'/a' was not copied out" in outcome.remarks[0]
    # The machine goes on, and so do the other copies.
    assert (guard.ended, connections) == (0, [])


def test_a_copy_into_the_guest_ends_too(
    monkeypatch: pytest.MonkeyPatch, connections: list[str]
) -> None:
    monkeypatch.setattr(job, "STALL_SECONDS", 0.2)

    def stalls(way: job.copy.Way, *_: object) -> None:
        while not way.stop.asked:
            pass
        raise errors.VmctlError("the connection ended")

    monkeypatch.setattr(job.copy, "to_guest", stalls)
    wanted = Job(argv=("x",), copies_in=(Copy("/a", "/tmp"),))
    outcome = job.carry_out(ACCESS, wanted, QUIET)
    assert outcome.status == 125
    assert outcome.problem is not None
    assert "Nothing was copied for 0.2 s" in outcome.problem.message


def test_trouble_ends_a_copy(monkeypatch: pytest.MonkeyPatch, connections: list[str]) -> None:
    def goes_on(way: job.copy.Way, *_: object) -> None:
        while not way.stop.asked:
            way.told(1, 0)
        raise errors.VmctlError("the connection ended")

    monkeypatch.setattr(job.copy, "to_guest", goes_on)
    wanted = Job(argv=("x",), copies_in=(Copy("/a", "/tmp"),))
    outcome = job.carry_out(ACCESS, wanted, QUIET, guard=Guard(PANIC))
    assert (outcome.status, outcome.problem) == (125, PANIC)


def test_variables_are_not_shown() -> None:
    assert "secret" not in repr(Job(argv=("x",), env={"A": "secret"}))


def test_what_is_copied() -> None:
    assert list(job.parsed(("./a:/b:c",), "--copy-in")) == [Copy("./a", "/b:c")]
    for word in ("a", ":b", "a:", ":"):
        with pytest.raises(errors.UsageError, match="SOURCE:TARGET"):
            list(job.parsed((word,), "--copy-out"))


def test_sources_are_looked_for_first(tmp_path: pathlib.Path) -> None:
    Job(argv=("x",), copies_in=(Copy(str(tmp_path), "/x"),)).require_sources()
    with pytest.raises(errors.NotFoundError, match="to copy in"):
        Job(argv=("x",), copies_in=(Copy(f"{tmp_path}/a", "/x"),)).require_sources()
    with pytest.raises(errors.NotFoundError, match="to copy into"):
        Job(argv=("x",), copies_out=(Copy("/x", f"{tmp_path}/a/b"),)).require_sources()


def test_an_outcome_without_a_problem_is_no_failure() -> None:
    assert not Outcome(status=255).failed


@pytest.mark.parametrize(("answer", "ends"), [(67, 125), (0, 1), (127, 1)])
def test_a_user_whom_the_guest_does_not_know(
    monkeypatch: pytest.MonkeyPatch, connections: list[str], answer: int, ends: int
) -> None:
    """Only its own question says so: status 1 of su may be the command's."""

    def run(_access: Access, request: shell.Request, *_: object, **__: object) -> int:
        return 1 if request.user else answer

    monkeypatch.setattr(remote, "run", run)
    outcome = job.carry_out(ACCESS, Job(argv=("x",), user="nosuch"), QUIET)
    assert (outcome.status, outcome.failed) == (ends, ends == 125)
    if outcome.problem is not None:
        assert "no user 'nosuch'" in outcome.problem.message


@pytest.mark.allow_process
@pytest.mark.parametrize(
    ("user", "known"), [("root", True), ("#4711", True), ("0", True), ("no such", False)]
)
def test_the_question_for_a_user(user: str, known: bool) -> None:
    done = subprocess.run(["sh", "-c", job._KNOWS, "sh", user], check=False)
    assert done.returncode == (0 if known else 67)
