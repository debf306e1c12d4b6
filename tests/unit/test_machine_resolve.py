from __future__ import annotations

import dataclasses
import pathlib

import pytest

from tests import replay
from vmctl import errors
from vmctl.machine.model import Chipset, Image, Machine, Mode, NicKind
from vmctl.spec.problems import SpecError
from vmctl.store.storage import Storage

KVM = replay.host("kvm-intel-fine")
NO_KVM = replay.host("software-kvm-no-flags")


@pytest.fixture
def resolved(tmp_path: pathlib.Path):  # type: ignore[no-untyped-def]
    def resolve(text: str, *sets: str, **where: object) -> Machine:
        path = tmp_path / "vmctl.yaml"
        path.write_text(text)
        facts = where.pop("facts", KVM)
        around = replay.surroundings(facts, **where)  # type: ignore[arg-type]
        return replay.machines(path, around, *sets)[0]

    return resolve


def test_defaults(resolved) -> None:  # type: ignore[no-untyped-def]
    machine = resolved("name: web\nimage: tiny\n")
    assert machine.mode is Mode.PARAVIRT
    assert (machine.cpus, machine.cpus_max, machine.memory) == (1, 1, 1 << 30)
    assert machine.memory_max == machine.memory
    assert [nic.kind for nic in machine.nics] == [NicKind.USER]
    assert machine.disks == ()
    assert machine.boot_order == ()
    assert machine.console_log == "/var/lib/vmctl/machines/web/console.log"
    assert machine.ready.pattern == "vmctl-tiny: ready"
    assert machine.ready.timeout == 30


def test_names_give_identities_that_stay(resolved) -> None:  # type: ignore[no-untyped-def]
    one, again, other = (resolved(f"name: {name}\nimage: tiny\n") for name in ("web", "web", "db"))
    assert (one.uuid, one.nics[0].mac) == (again.uuid, again.nics[0].mac)
    assert one.uuid != other.uuid
    assert one.nics[0].mac != other.nics[0].mac
    assert int(one.nics[0].mac.split(":")[0], 16) & 3 == 2  # unicast, locally administered


def test_every_deadline_is_ten_times_longer_under_tcg(resolved) -> None:  # type: ignore[no-untyped-def]
    text = "name: web\nimage: tiny\nready: {pattern: x, timeout: 5s}\n"
    assert resolved(text).ready.timeout == 5
    assert resolved(text, facts=NO_KVM).ready.timeout == 50
    assert resolved(text, "mode=full").ready.timeout == 50
    # A processor that is emulated itself makes KVM as slow.
    emulated = replay.host("kvm-in-emulated-amd")
    assert resolved(text, "mode=paravirt", facts=emulated).ready.timeout == 50


def test_a_system_disk_is_an_overlay(resolved) -> None:  # type: ignore[no-untyped-def]
    machine = resolved("name: web\nimage: distribution\ndisk: 20GiB\n")
    (root,) = machine.disks
    assert root.base == replay.DISTRIBUTION.disk
    assert root.size == 20 << 30
    assert machine.boot_order == ("disk",)
    assert resolved("name: web\nimage: distribution\n").disks[0].size == replay.DISTRIBUTION.size


def test_an_order_that_no_firmware_reads_is_refused(resolved) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SpecError) as refusal:
        resolved("name: web\nimage: tiny\ncdroms: [./a.iso]\nboot_order: [cdrom]\n")
    assert "starts by its kernel" in str(refusal.value.problems[0])


def test_a_disk_never_shrinks(resolved) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SpecError) as refusal:
        resolved("name: web\nimage: distribution\ndisk: 1GiB\n")
    assert refusal.value.problems[0].line == 3
    assert "never shrinks" in refusal.value.problems[0].message


def test_cache_and_io_follow_the_store(resolved) -> None:  # type: ignore[no-untyped-def]
    text = "name: web\nimage: distribution\n"
    for storage, aio in (
        (Storage(direct=True, io_uring=True), "io_uring"),
        (Storage(direct=True, io_uring=False), "native"),
        (Storage(direct=False, io_uring=False), "threads"),
    ):
        (root,) = resolved(text, storage=storage).disks
        assert (root.direct, root.aio) == (storage.direct, aio)
        # The emulated modes differ from each other in the processor only.
        assert resolved(text, "mode=full", storage=storage).disks[0].aio == "threads"


def test_memory_max_needs_the_balloon(resolved) -> None:  # type: ignore[no-untyped-def]
    text = "name: web\nimage: tiny\nmemory: 1GiB\nmemory_max: 2GiB\n"
    assert resolved(text).memory_max == 2 << 30
    with pytest.raises(SpecError) as refusal:
        resolved(text, "mode=full")
    assert "balloon" in refusal.value.problems[0].message


def test_a_kernel_image_has_no_system_disk(resolved) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SpecError) as refusal:
        resolved("name: web\nimage: tiny\ndisk: 1GiB\n")
    assert refusal.value.problems[0].line == 3


def test_nothing_to_start_from(resolved) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SpecError) as refusal:
        resolved("name: web\n")
    assert "nothing to start from" in refusal.value.problems[0].message


def test_an_unknown_driver_set_is_refused_at_the_image(resolved, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    cloud = Image(name="tiny", digest="2" * 64, disk="/x", size=1 << 30, drivers=frozenset({"ide"}))
    monkeypatch.setattr(replay, "TINY", cloud)
    with pytest.raises(SpecError) as refusal:
        resolved("name: web\nimage: tiny\nmode: full\n")
    assert refusal.value.problems[0].line == 2


def test_old_kernels_get_the_pc_board(resolved, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    old = dataclasses.replace(replay.DISTRIBUTION, drivers=frozenset({"ide", "e1000"}))
    monkeypatch.setattr(replay, "DISTRIBUTION", old)
    machine = resolved("name: web\nimage: distribution\nmode: hardware\n")
    assert (machine.chipset, machine.nics[0].model) == (Chipset.PC, "e1000")


def test_vhost_and_queues_only_where_they_help(resolved) -> None:  # type: ignore[no-untyped-def]
    text = "name: web\nimage: tiny\ncpus: 4\nnetworks: [{kind: nat}, {kind: user}]\n"
    nat, user = resolved(text).nics
    assert (nat.vhost, nat.queues) == (True, 4)
    assert (user.vhost, user.queues) == (False, 1)
    assert resolved(text, "mode=hardware").nics[0].vhost is False
    assert resolved(text, facts=NO_KVM).nics[0].vhost is False
    without = dataclasses.replace(KVM, vhost_net=False)
    assert resolved(text, facts=without).nics[0].vhost is False


@pytest.mark.parametrize("kind", ["nat", "isolated"])
def test_the_session_connection_has_no_such_network(resolved, kind: str) -> None:  # type: ignore[no-untyped-def]
    text = f"name: web\nimage: tiny\nnetworks: [{{kind: {kind}}}]\n"
    with pytest.raises(errors.HostError) as refusal:
        resolved(text, session=True)
    assert refusal.value.exit_code == 5
    assert kind in refusal.value.message


def test_nesting_is_refused_where_the_host_has_it_off(resolved) -> None:  # type: ignore[no-untyped-def]
    text = "name: web\nimage: tiny\nnested: true\n"
    assert resolved(text).nested
    assert resolved(text, facts=NO_KVM).nested  # emulated AMD-V
    with pytest.raises(errors.HostError) as refusal:
        resolved(text, facts=replay.host("intel-nesting-off"))
    assert "nested" in refusal.value.hint


def test_missing_firmware_and_tpm_are_the_hosts_fault(resolved) -> None:  # type: ignore[no-untyped-def]
    bare = dataclasses.replace(KVM, firmware=(), programs={})
    for key in ("firmware: uefi", "firmware: uefi-secure", "firmware: uefi\ntpm: true"):
        with pytest.raises(errors.HostError) as refusal:
            resolved(f"name: web\nimage: tiny\n{key}\n", facts=bare)
        assert "doctor" in refusal.value.hint


def test_all_problems_of_all_machines_at_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "vmctl.yaml"
    path.write_text("vms:\n  a: {image: tiny, disk: 1GiB}\n  b: {image: tiny, disk: 2GiB}\n")
    with pytest.raises(SpecError) as refusal:
        replay.machines(path, replay.surroundings(KVM))
    assert [problem.line for problem in refusal.value.problems] == [2, 3]


def test_digest_covers_the_machine_and_not_the_telling(resolved) -> None:  # type: ignore[no-untyped-def]
    machine = resolved("name: web\nimage: tiny\n")
    assert dataclasses.replace(machine, why="other").digest == machine.digest
    assert dataclasses.replace(machine, cpus=2).digest != machine.digest
    assert resolved("name: web\nimage: tiny\n").digest == machine.digest


def test_an_image_has_a_least_memory(resolved) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SpecError) as refusal:
        resolved("name: web\nimage: tiny\nmemory: 64MiB\n")
    assert "at least 128MiB" in refusal.value.problems[0].message
    assert refusal.value.problems[0].line == 3
