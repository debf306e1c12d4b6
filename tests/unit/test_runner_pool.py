"""The small parts of pools: leases, messages, files, what makes a guest fresh."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import re
from collections.abc import Callable

import pytest

from tests import replay
from vmctl import errors
from vmctl.cli import context as contexts
from vmctl.cli import runs
from vmctl.deadline import Deadline
from vmctl.guest.ssh import Access
from vmctl.hypervisor.connection import Versions
from vmctl.images import elf
from vmctl.machine.model import Machine
from vmctl.runner import background
from vmctl.runner.pooling import (
    fresh,
    lease,
    pool,
    pool_client,
    pool_metrics,
    pools,
    protocol,
    ready,
    reseed,
    template,
    warm,
)
from vmctl.runner.pooling.pool import Pool
from vmctl.runner.pooling.ready import Ready
from vmctl.spec.model import MachineSpec, ProvisionSpec
from vmctl.store import files, locks, records
from vmctl.store.layout import Layout

SOON = Deadline.after(0.02)


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "slot-1.lease"


def test_a_lease_is_held_until_the_end(file: pathlib.Path) -> None:
    assert lease.clear(file)
    lease.grant(file, "abc")
    assert lease.granted(file)
    with lease.held(file, "abc", SOON):
        assert not lease.clear(file)
        assert lease.granted(file)
    assert lease.clear(file)
    assert os.stat(file).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("end", [lease.clear, lease.revoke])
def test_what_a_job_has_seen_is_not_fresh(file: pathlib.Path, end: Callable[..., object]) -> None:
    """Not before it was reset: the next supervisor would hand it out as it is."""
    lease.grant(file, "")
    end(file)
    assert not lease.granted(file)
    lease.grant(file, "abc")
    end(file)
    end(file)
    assert lease.granted(file)
    with pytest.raises(lease.LostError), lease.held(file, "abc", SOON):
        pytest.fail("it is over")
    lease.grant(file, "")
    assert not lease.granted(file)


def test_a_lease_that_was_taken_back_is_lost(file: pathlib.Path) -> None:
    """A client that was told of a slot by a supervisor that died meets the next one's word."""
    with pytest.raises(lease.LostError), lease.held(file, "abc", SOON):
        pytest.fail("there is no file")
    lease.grant(file, "abc")
    assert lease.clear(file)
    with pytest.raises(lease.LostError), lease.held(file, "abc", SOON):
        pytest.fail("it was cleared")
    lease.grant(file, "def")
    with pytest.raises(lease.LostError), lease.held(file, "abc", SOON):
        pytest.fail("it is another's")


def test_a_lease_waits_for_a_look(file: pathlib.Path) -> None:
    lease.grant(file, "abc")
    with open(file, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with pytest.raises(lease.LostError), lease.held(file, "abc", SOON):
            pytest.fail("it is locked")


def test_messages_in_pieces() -> None:
    lines = protocol.Lines()
    sent = protocol.encode({"ask": "claim"}) + protocol.encode({"ask": "status"})
    found = [line for byte in sent for line in lines.feed(bytes([byte]))]
    assert [protocol.decode(line)["ask"] for line in found] == ["claim", "status"]
    with pytest.raises(ValueError, match="too long"):
        list(lines.feed(b"x" * (protocol.LONGEST + 1)))


@pytest.mark.parametrize("line", [b"[]", b"1", b"nonsense", b"\xff", b""])
def test_what_is_no_message(line: bytes) -> None:
    with pytest.raises(ValueError):
        protocol.decode(line)


def test_errors_go_over_the_socket() -> None:
    told = errors.ConflictError("It is drained.", hint="Wait.", details="much")
    with pytest.raises(errors.ConflictError) as raised:
        protocol.raised(protocol.decode(protocol.encode(protocol.refusal(told))))
    assert (raised.value.message, raised.value.hint) == ("It is drained.", "Wait.")
    with pytest.raises(errors.VmctlError, match="did not say"):
        protocol.raised({})
    assert protocol.raised({"ok": True, "a": 1})["a"] == 1


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    (tmp_path / "locks").mkdir()
    return Layout(tmp_path)


def a_pool(**changes: object) -> Pool:
    found = Pool(name="ci", spec="/x.yaml", uri="qemu:///system", slots=2, sets=("cpus=2",))
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]


def test_a_pool_is_kept(layout: Layout) -> None:
    pool.create(layout, a_pool(), b"image: tiny\n")
    assert pool.read(layout, "ci") == a_pool()
    assert list(pool.every(layout)) == [a_pool()]
    assert os.stat(layout.pool("ci").directory).st_mode & 0o777 == 0o700
    with pytest.raises(errors.ConflictError, match="'ci'"):
        pool.create(layout, a_pool(), None)
    for number in (2, 11):
        lease.grant(layout.pool("ci").lease(number), "x")
    assert pool.leftover_slots(layout, a_pool()) == [2, 11]
    pool.remove(layout, "ci")
    assert not layout.pool("ci").directory.exists()
    with pytest.raises(errors.NotFoundError, match="'ci'"):
        pool.read(layout, "ci")


def test_damaged_pools_are_none(layout: Layout) -> None:
    assert list(pool.every(layout)) == []
    place = layout.pool("ci")
    place.directory.mkdir(parents=True)
    other = json.dumps(dataclasses.asdict(a_pool(name="other")))
    for text in ("", "[]", '{"name": "ci"}', other):
        place.record.write_text(text)
        assert list(pool.every(layout)) == []


def test_no_pool_has_the_lock_of_another(layout: Layout) -> None:
    kinds = ("files-ci", "s-ci", "ci")
    with contextlib.ExitStack() as stack:
        for name in kinds:
            stack.enter_context(locks.hold(layout.lock("pool", name), None, name))
        pool.create(layout, a_pool(), None)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "../x", "x" * 41])
def test_names_that_are_refused(layout: Layout, name: str) -> None:
    with pytest.raises(errors.UsageError, match="cannot name a pool"):
        pool.read(layout, name)


def test_a_pool_that_nobody_supervises(layout: Layout) -> None:
    pool.create(layout, a_pool(), None)
    assert [slot["state"] for slot in pools.status(layout, "ci")["slots"]] == ["unsupervised"] * 2
    pools.scale(layout, "ci", 0)
    assert pool.read(layout, "ci").slots == 0
    pools.drain(layout, "ci", SOON, resume=False)
    assert pool.read(layout, "ci").drained
    pools.drain(layout, "ci", SOON, resume=True)
    assert not pool.read(layout, "ci").drained
    text = pool_metrics.text(pools.summaries(layout))
    assert 'vmctl_pool_supervised{pool="ci"} 0.0' in text
    pools.delete(layout, "ci", SOON, force=False)
    assert list(pool.every(layout)) == []


def test_a_panic_is_seen_although_the_log_was_rotated(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "console.log"
    log.write_text("Kernel panic - not syncing: of another job\n" + "x" * 500)
    console = pool_client.Console(log)
    assert console.begin == log.stat().st_size
    assert not console.panic() and not console.tail().strip("x")
    with log.open("a") as stream:
        stream.write("\nlast words\nKernel panic - not ")
    assert not console.panic()
    assert "last words" in console.tail() and "another job" not in console.tail()
    log.rename(tmp_path / "console.log.0")
    log.write_text("syncing: Attempted to kill init!\nend\n")
    assert console.panic() == "Kernel panic - not syncing: Attempted to kill init!"
    assert console.panic(), "it is not forgotten"
    assert console.tail().endswith("end")


def test_what_a_background_process_gets_of_the_environment() -> None:
    kept = ["PATH", "HOME", "VMCTL_HOME", "LIBVIRT_DEFAULT_URI", "XDG_RUNTIME_DIR", "https_proxy"]
    secret = ["TOKEN", "CUSTOM_ENV_CI_JOB_TOKEN", "HOMEPAGE", "MY_PATH"]
    assert background.bare([*kept, *secret]) == ["env", *(f"--unset={name}" for name in secret)]


IDENTITY = fresh.Identity(hostname="it's", machine_id="0" * 32, seed=b"\0'\xff", now=1700000000)


def test_the_script_takes_what_it_is_given_word_for_word() -> None:
    text = fresh.script(IDENTITY).decode()
    assert """hostname='it'"'"'s'""" in text
    found = re.search(r"^seed=(.*)$", text, re.MULTILINE)
    assert found is not None and base64.b64decode(found[1]) == IDENTITY.seed
    assert "seed" not in repr(IDENTITY)


def test_what_the_script_tells() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIexample0123"
    assert fresh.host_key(f"x\nvmctl-host-key {key} \n") == key
    for other in ("", "vmctl-host-key ", "vmctl-host-key ssh-rsa AAAA", f"x vmctl-host-key {key}"):
        assert fresh.host_key(other) == ""
    # Nothing that a guest says adds a line or a name to known_hosts.
    assert fresh.host_key(f"vmctl-host-key {key} *,evil\n") == ""
    assert fresh.runs_guests("vmctl-nested 2\n")
    assert not fresh.runs_guests("vmctl-nested 0\n")


def test_the_program_is_one_that_linux_starts() -> None:
    found = reseed.program()
    assert found.startswith(elf.MAGIC) and elf.Elf(found).interpreter == ""
    assert found.endswith(b"/dev/urandom\0")
    assert len(found) < 512


@pytest.fixture
def machine() -> Machine:
    around = replay.surroundings(replay.host("kvm-intel-fine"))
    return replay.machines(replay.TEMPLATES / "hello.yaml", around)[0]


def spec(**fields: object) -> MachineSpec:
    return MachineSpec(name="ci-1", **fields)  # type: ignore[arg-type]


def refused(machine: Machine, wanted: MachineSpec | None = None) -> list[errors.VmctlError]:
    return list(template.objections(machine, wanted or spec(), allow_tcg=False))


def test_tcg_must_be_accepted(machine: Machine) -> None:
    from vmctl.machine.model import Mode

    assert refused(machine) == []
    slow = dataclasses.replace(machine, mode=Mode.TCG_VIRTIO)
    problem = refused(slow)[0]
    assert isinstance(problem, errors.RefusedError) and "--allow-tcg" in problem.hint
    assert list(template.objections(slow, spec(), allow_tcg=True)) == []


def test_secrets_of_steps_are_refused(machine: Machine) -> None:
    step = ProvisionSpec(script="true", env={"TOKEN": "x"})
    problem = refused(machine, spec(provision=(step,)))[0]
    assert isinstance(problem, errors.RefusedError) and "x" not in problem.message.split()


@pytest.mark.parametrize(
    "changes", [{"user": ""}, {"nics": ()}, {"needs": ("db",)}, {"autostart": True}]
)
def test_machines_that_are_none_of_a_pool(machine: Machine, changes: dict[str, object]) -> None:
    changed = dataclasses.replace(machine, **changes)  # type: ignore[arg-type]
    assert any(isinstance(each, errors.UsageError) for each in refused(changed))


def test_machines_that_run_machines_are_made_anew(machine: Machine) -> None:
    """Under KVM the state of guests inside is not kept whole: no memory is."""
    assert template.keeps_memory(machine)
    assert not template.keeps_memory(dataclasses.replace(machine, nested=True))


def test_room(machine: Machine) -> None:
    limited = a_pool(memory_limit=2 * machine.memory_max)
    with contextlib.suppress(errors.HostError):
        template.require_room(limited, machine, 2)
    with pytest.raises(errors.HostError, match="more than the"):
        template.require_room(limited, machine, 3)
    with pytest.raises(errors.HostError, match="do not fit"):
        template.require_room(a_pool(), machine, 1_000_000)


def test_what_is_the_same_is_kept_warm_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = warm.name_of("tiny", ("a=1", "b=2"), "qemu:///system")
    assert first == warm.name_of("tiny", ("b=2", "a=1"), "qemu:///system")
    assert pool.NAME.fullmatch(first)
    others = [
        warm.name_of("tiny", (), "qemu:///system"),
        warm.name_of("tiny", ("a=1", "b=2"), "qemu:///session"),
        warm.name_of("./tiny", ("a=1", "b=2"), "qemu:///system"),
    ]
    assert first not in others
    monkeypatch.chdir("/")
    assert warm.name_of("./tiny", ("a=1", "b=2"), "qemu:///system") != others[2]


class Libvirt:
    """Stands for a connection that is asked for versions."""

    def __init__(self, qemu: tuple[int, int, int]) -> None:
        self._qemu = qemu

    def versions(self) -> Versions:
        return Versions(libvirt=(9, 0, 0), qemu=self._qemu)


def test_what_a_saved_state_belongs_to(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another QEMU, image, machine, vmctl or processor: another state."""

    def key(found: Machine = machine, qemu: tuple[int, int, int] = (7, 2, 0)) -> str:
        return template.key(found, Libvirt(qemu))  # type: ignore[arg-type]

    first = key()
    assert key() == first
    assert machine.image is not None
    image = dataclasses.replace(machine.image, digest="f" * 64)
    others = [
        key(qemu=(7, 2, 1)),
        key(dataclasses.replace(machine, image=image)),
        key(dataclasses.replace(machine, cpus=3)),
        key(dataclasses.replace(machine, emulator="/opt/qemu")),
    ]
    monkeypatch.setattr("vmctl.__version__", "0.0.9")
    others.append(key())
    monkeypatch.undo()
    monkeypatch.setattr(template, "_processor", lambda: "another")
    others.append(key())
    assert first not in others and len(set(others)) == len(others)


def test_who_worked_on_a_machine_is_seen(tmp_path: pathlib.Path) -> None:
    """A restore writes the record anew, a release removes it, and what is under way is noted."""
    layout = Layout(tmp_path)
    place = layout.machine("ci-1")
    place.directory.mkdir(parents=True)
    place.record.write_text("{}")
    path = pathlib.Path("/nowhere")
    access = Access(name="x", host="x", port=1, user="x", key=path, known_hosts=path, alias="x")
    made = Ready(
        machine="ci-1",
        access=access,
        generation="g",
        key="k",
        stamp=ready.stamp(layout, "ci-1"),
    )
    assert Ready.from_dict(json.loads(json.dumps(made.as_dict()))) == made
    assert made.untouched(layout)
    records.begin(place, "restore")
    assert not made.untouched(layout)
    records.finish(place)
    assert made.untouched(layout)
    files.write(place.record, b"{}")
    assert not made.untouched(layout)
    assert not dataclasses.replace(made, stamp="").untouched(layout)
    place.record.unlink()
    assert not made.untouched(layout)


def test_help_says_that_a_pool_has_a_spec_already() -> None:
    with runs.run.make_context("run", ["--pool", "p", "x"], obj=contexts.Context()) as ctx:
        text = " ".join(runs.run.get_help(ctx).split())
    assert "with --pool neither is named, and all words are the command" in text
