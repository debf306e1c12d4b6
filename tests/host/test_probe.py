"""The real probe: on this host's /dev/kvm where there is one, and on what is no KVM."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import stat
import time

import pytest

from vmctl.deadline import Deadline
from vmctl.host import gather, kvm, probe, verdict
from vmctl.host.facts import DeviceNode, ProbeResult

KVM = pathlib.Path("/dev/kvm")
needs_kvm = pytest.mark.skipif(
    not kvm.node(KVM).openable or kvm.ask(KVM).create_vm_errno != 0,
    reason="this host has no /dev/kvm that makes a VM",
)


def child(directory: pathlib.Path, text: str) -> pathlib.Path:
    path = directory / "child.py"
    path.write_text(text)
    return path


@needs_kvm
def test_the_verdict_agrees_with_what_the_processor_says() -> None:
    facts = gather.gather(Deadline.after(20), fresh=True)
    assert facts.probe is not None
    assert not facts.probe.error
    assert [case.name for case in facts.probe.cases] == [
        "long-mode",
        "sse",
        "cmpxchg16b",
        "exception",
        "loop",
    ]
    decided = verdict.kvm_verdict(facts, system=False)
    assert decided.usable == facts.probe.passed
    if "kvm_pvm" in facts.modules and not facts.cpu.extension:
        assert decided.code == "software-kvm"
        failed = {case.name for case in facts.probe.cases if not case.passed}
        assert failed == {"sse", "cmpxchg16b", "exception", "loop"}


@needs_kvm
def test_a_guest_that_never_answers_is_ended_and_the_next_case_runs() -> None:
    started = time.monotonic()
    result = probe.run(str(KVM), Deadline.after(20), cases=("spin", "long-mode"))
    assert time.monotonic() - started < 10
    outcome = {case.name: case for case in result.cases}
    assert not outcome["spin"].passed
    assert outcome["spin"].detail == "did not end in time"
    assert outcome["long-mode"].passed
    assert not result.passed


@pytest.mark.parametrize("kind", ["file", "missing", "null", "fifo", "directory"])
def test_what_is_no_kvm_is_said_to_be_none(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "kvm"
    if kind == "file":
        path.write_text("not a device")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "null":
        path = pathlib.Path("/dev/null")
    result = probe.run(str(path), Deadline.after(20))
    assert str(path) in result.error
    assert "errno" in result.error
    assert not result.passed
    assert not result.timed_out


def test_a_child_that_is_killed_is_a_result(tmp_path: pathlib.Path) -> None:
    program = child(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    result = probe.run("/dev/kvm", Deadline.after(20), program=program)
    assert "SIGKILL" in result.error
    assert not result.passed


def test_a_child_that_hangs_is_a_result_at_the_deadline(tmp_path: pathlib.Path) -> None:
    program = child(tmp_path, "import time; time.sleep(600)")
    started = time.monotonic()
    result = probe.run("/dev/kvm", Deadline.after(0.5), program=program)
    assert time.monotonic() - started < 10
    assert result.timed_out
    assert not result.passed


@pytest.mark.parametrize("text", ["", "hello", "[]", '{"cases": 1}', '{"cases": [{}]}', "\\xff"])
def test_a_child_that_prints_nonsense(tmp_path: pathlib.Path, text: str) -> None:
    program = child(tmp_path, f"print({text!r})")
    result = probe.run("/dev/kvm", Deadline.after(20), program=program)
    assert "nonsense" in result.error


def test_the_child_reads_no_python_settings_of_the_caller(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert "errno 2" in probe.run("/nowhere", Deadline.after(20)).error


@pytest.fixture
def node() -> DeviceNode:
    return kvm.node(KVM)


@needs_kvm
def test_the_result_is_remembered(tmp_path: pathlib.Path, node: DeviceNode) -> None:
    first = probe.remembered(node, Deadline.after(20), directory=tmp_path / "cache")
    assert not first.cached
    (file,) = (tmp_path / "cache").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    second = probe.remembered(node, Deadline.after(20), directory=tmp_path / "cache")
    assert second == dataclasses.replace(first, cached=True)
    fresh = probe.remembered(node, Deadline.after(20), fresh=True, directory=tmp_path / "cache")
    assert not fresh.cached


@needs_kvm
@pytest.mark.parametrize("damage", [b"", b"{", b"null", b"[]", b'{"cases": []}', b"\xff" * 99])
def test_a_damaged_memory_is_ignored(
    tmp_path: pathlib.Path, node: DeviceNode, damage: bytes
) -> None:
    probe.remembered(node, Deadline.after(20), directory=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage)
    again = probe.remembered(node, Deadline.after(20), directory=tmp_path)
    assert not again.cached
    assert again.cases
    assert probe.remembered(node, Deadline.after(20), directory=tmp_path).cached


@needs_kvm
def test_a_memory_that_others_may_write_is_ignored(
    tmp_path: pathlib.Path, node: DeviceNode
) -> None:
    probe.remembered(node, Deadline.after(20), directory=tmp_path)
    (file,) = tmp_path.iterdir()
    file.chmod(0o666)
    assert not probe.remembered(node, Deadline.after(20), directory=tmp_path).cached


@needs_kvm
def test_a_changed_device_is_probed_again(tmp_path: pathlib.Path, node: DeviceNode) -> None:
    probe.remembered(node, Deadline.after(20), directory=tmp_path)
    touched = dataclasses.replace(node, ctime_ns=node.ctime_ns + 1)
    assert not probe.remembered(touched, Deadline.after(20), directory=tmp_path).cached
    assert len(list(tmp_path.iterdir())) == 1  # the outdated result is gone


@needs_kvm
def test_a_place_that_cannot_be_written_hinders_nobody(
    tmp_path: pathlib.Path, node: DeviceNode
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert probe.remembered(node, Deadline.after(20), directory=blocked / "cache").cases


def test_a_failed_probe_is_not_remembered(tmp_path: pathlib.Path) -> None:
    missing = DeviceNode(path=str(tmp_path / "kvm"))
    result = probe.remembered(missing, Deadline.after(20), directory=tmp_path / "cache")
    assert result.error
    assert not (tmp_path / "cache").exists()


def test_where_results_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert probe.cache_directory() == tmp_path / "vmctl"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the XDG rules say: ignore
    assert probe.cache_directory().is_absolute()


def test_no_case_at_all_is_no_success() -> None:
    assert not ProbeResult().passed
