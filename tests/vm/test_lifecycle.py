"""A machine's life on a real libvirt: up, down and all in between."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site
from vmctl.hypervisor import domains

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def machine(site: Site) -> str:
    return site.up("accel: tcg\ndevices: virtio\n")


def boots(site: Site, name: str) -> int:
    log = (site.home / "machines" / name / "console.log").read_bytes()
    return log.count(b"vmctl-tiny: ready")


def qemu_pid(name: str) -> int:
    return int(pathlib.Path(f"/run/libvirt/qemu/{name}.pid").read_text())


def test_up_twice_changes_nothing(site: Site, machine: str, guest_uri: libvirt.virConnect) -> None:
    before = guest_uri.lookupByName(machine).ID()
    path = str(site.specs / f"{machine}.yaml")
    plan = site.run("up", "--dry-run", "--json", path).json["machines"][0]
    # To look again is no change: ssh's own port is forwarded by QEMU alone.
    assert plan["actions"] == ["forward ports", "wait until ready"]
    result = site.run("up", path)
    assert guest_uri.lookupByName(machine).ID() == before
    assert f"vmctl console {machine}" in result.out


def test_ps_and_status(site: Site, machine: str) -> None:
    row = next(row for row in site.run("ps", "--all", "--json").json if row["name"] == machine)
    assert (row["state"], row["ready"], row["mode"]) == ("running", True, "tcg-virtio")
    assert row["memory"] == 128 << 20
    text = site.run("status", machine).out
    assert "tcg (as QEMU itself says)" in text
    assert all(len(line) < 200 for line in text.splitlines())
    assert site.run("status", "no-such-machine", status=3).err.startswith("error: ")


def test_logs(site: Site, machine: str) -> None:
    assert "vmctl-tiny: ready" in site.run("logs", machine).out
    assert len(site.run("logs", "-n", "3", machine).out.splitlines()) <= 3
    site.run("logs", "no-such-machine", status=3)


def test_pause_and_resume(site: Site, machine: str) -> None:
    site.run("pause", machine)
    assert site.status(machine)["state"] == "paused"
    site.run("pause", machine)
    site.run("resume", machine)
    site.run("resume", machine)
    assert site.status(machine)["state"] == "running"
    assert site.console(machine, "echo a''live") == "alive"


def test_a_guest_that_somebody_else_resumed_is_no_failure(
    machine: str, guest_uri: libvirt.virConnect
) -> None:
    domain = guest_uri.lookupByName(machine)
    domains.resume(domain)
    domain.suspend()
    domains.resume(domain)
    assert domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING


def test_up_resumes_a_paused_machine(site: Site, machine: str) -> None:
    site.run("pause", machine)
    site.run("up", str(site.specs / f"{machine}.yaml"))
    assert site.status(machine)["state"] == "running"


def test_stop_is_graceful_and_start_boots_again(site: Site, machine: str) -> None:
    before = boots(site, machine)
    site.run("stop", machine)
    status = site.status(machine)
    assert status["state"] == "stopped"
    assert status["reason"] == "shut down"
    assert "Power down" in site.run("logs", machine).out
    site.run("stop", machine)
    site.run("start", machine)
    assert boots(site, machine) == before + 1
    assert site.status(machine)["ready"] is True


def test_restart(site: Site, machine: str) -> None:
    before = boots(site, machine)
    site.run("restart", "--force", machine)
    assert boots(site, machine) == before + 1


def test_a_guest_that_ignores_the_button_is_forced_only_when_asked(site: Site) -> None:
    name = site.up("mode: full\nready: {when: running}\n")
    # Too early for the guest to listen: it is still in its firmware or decompressing.
    result = site.run("stop", "--timeout", "1s", name, status=None)
    if result.status == 0:
        pytest.fail("the guest followed the button before it was up")
    assert result.status == 6
    assert "stop --force" in result.err
    assert site.status(name)["state"] == "running"
    site.run("stop", "--force", name)
    assert site.status(name)["state"] == "stopped"
    site.run("down", "-y", name)


def test_down_leaves_nothing_but_what_is_kept(site: Site, guest_uri: libvirt.virConnect) -> None:
    path, name = site.spec(
        "accel: tcg\ndevices: virtio\n"
        "disks: [{name: data, size: 16MiB, keep: true}, {name: scratch, size: 16MiB}]\n"
    )
    site.run("up", path)
    place = site.home / "machines" / name
    site.console(name, "echo precious > /data/file; sync")
    assert site.console(name, "cat /data/file") == "precious"
    denied = site.run("down", name, status=2)
    assert "-y" in denied.err
    site.run("down", "-y", path)
    assert [entry.name for entry in place.iterdir()] == ["data.qcow2"]
    with pytest.raises(libvirt.libvirtError):
        guest_uri.lookupByName(name)
    site.run("down", "-y", path)
    site.run("up", path)
    assert site.console(name, "cat /data/file") == "precious"
    site.run("down", "-y", "--delete-kept", name)
    assert not place.exists()
    site.run("down", "-y", name, status=3)


def test_a_timeout_is_honest(site: Site) -> None:
    path, name = site.spec(
        "accel: tcg\ndevices: virtio\nready: {pattern: never-ever, timeout: 500ms}\n".replace(
            "500ms", "1s"
        )
    )
    result = site.run("up", path, status=6)
    text = " ".join(result.err.split())
    assert "awaited 'never-ever'" in text
    assert "ready within 10 s (ten times the usual" in text
    assert "vmctl-tiny" in result.err  # the tail of the console
    assert site.status(name)["state"] == "running"
    site.run("wait", "--timeout", "1s", name, status=6)
    site.run("down", "-y", name)


def test_wait(site: Site) -> None:
    path, name = site.spec("accel: tcg\ndevices: virtio\n")
    site.run("up", "--no-wait", path)
    site.run("wait", name)
    assert site.status(name)["ready"] is True
    site.run("stop", "--force", name)
    result = site.run("wait", name, status=4)
    assert "stopped" in result.err
    site.run("down", "-y", name)


@pytest.mark.parametrize("text", ["accel: tcg\ndevices: virtio\n", "mode: full\n"])
def test_a_panic_is_reported_as_that(site: Site, text: str) -> None:
    path, name = site.spec(text + "ready: {pattern: never, timeout: 1m}\n")
    process = site.start("up", path)
    log = site.home / "machines" / name / "console.log"
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and not (log.exists() and b"ready" in log.read_bytes()):
        time.sleep(0.1)
    with pytest.raises(AssertionError, match="no answer"):
        site.console(name, "echo c > /proc/sysrq-trigger", seconds=5)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 8
    assert "panic" in err
    if "virtio" in text:
        assert site.status(name)["state"] == "crashed"
        again = site.run("up", path, status=8)
        assert "restart --force" in again.err
        site.run("start", name, status=8)
        site.run("stop", name, status=8)
    site.run("down", "-y", name)


def test_qemu_killed_is_stopped_and_up_puts_it_right(site: Site) -> None:
    path, name = site.spec("accel: tcg\ndevices: virtio\n")
    site.run("up", path)
    os.kill(qemu_pid(name), signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and site.status(name)["state"] != "stopped":
        time.sleep(0.1)
    assert site.status(name)["reason"] == "QEMU ended unexpectedly"
    site.run("up", path)
    assert site.status(name)["ready"] is True
    site.run("down", "-y", name)


def test_changes_of_the_spec(site: Site, guest_uri: libvirt.virConnect) -> None:
    path, name = site.spec("accel: tcg\ndevices: virtio\n")
    site.run("up", path)
    before = guest_uri.lookupByName(name)
    identity = (before.UUIDString(), before.ID())
    machine_type = before.XMLDesc().partition("machine='")[2].partition("'")[0]
    assert machine_type.startswith("pc-q35-")
    result = site.run("up", path, "--set", "cpus=2")
    assert "at the next start" in result.err
    assert site.status(name)["pending"] == ["cpus: 1 -> 2", "cpus_max: 1 -> 2"]
    again = site.run("up", path, "--set", "cpus=2")
    assert "cpus: 1 -> 2 (takes effect at the next start)" in again.err
    row = next(row for row in site.run("ps", "--all", "--json").json if row["name"] == name)
    assert row["cpus"] == 1
    after = guest_uri.lookupByName(name)
    assert (after.UUIDString(), after.ID()) == identity
    assert machine_type in after.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert site.console(name, "nproc") == "1"
    site.run("restart", "--force", name)
    assert site.console(name, "nproc") == "2"
    site.run("down", "-y", name)


def test_hand_edits_are_shown_and_left(site: Site, guest_uri: libvirt.virConnect) -> None:
    path, name = site.spec("accel: tcg\ndevices: virtio\n")
    site.run("up", path)
    domain = guest_uri.lookupByName(name)
    xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    guest_uri.defineXML(xml.replace("<on_crash>preserve", "<on_crash>destroy"))
    assert any("on_crash" in drift for drift in site.status(name)["drift"])
    result = site.run("up", path, "--set", "cpus=2")
    assert "on_crash" in result.err
    assert "cpus: 1 -> 2 (not done: the domain was changed by other hands)" in result.err
    assert "<on_crash>destroy" in domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    site.run("down", "-y", name)


def test_domains_of_others_are_never_touched(site: Site, guest_uri: libvirt.virConnect) -> None:
    path, name = site.spec("mode: full\n")
    foreign = guest_uri.defineXML(
        f"<domain type='qemu'><name>{name}</name><memory>65536</memory>"
        "<os><type arch='x86_64'>hvm</type></os></domain>"
    )
    text = foreign.XMLDesc()
    for words in (("up", path), ("down", "-y", name), ("start", name), ("stop", name)):
        assert "vmctl did not make" in site.run(*words, status=4).err.replace(
            "was not made by vmctl", "vmctl did not make"
        )
    assert foreign.XMLDesc() == text
    assert not (site.home / "machines" / name).exists()
    foreign.undefine()


def test_disks_of_a_vanished_domain_are_never_lost(
    site: Site, guest_uri: libvirt.virConnect
) -> None:
    path, name = site.spec(
        "mode: full\nready: {when: running}\ndisks: [{name: data, size: 16MiB}]\n"
    )
    site.run("up", path)
    disk = site.home / "machines" / name / "data.qcow2"
    inode = disk.stat().st_ino
    domain = guest_uri.lookupByName(name)
    domain.destroy()
    domain.undefine()
    assert "removed by other hands" in site.run("status", name, status=3).err
    for sets in ("disks.0.size=8MiB", "disks.0.size=4MiB"):
        refused = site.run("up", path, "--set", sets, status=4)
        assert str(disk) in refused.err
        assert disk.stat().st_ino == inode
    site.run("up", path)
    assert disk.stat().st_ino == inode
    site.run("down", "-y", path)


def test_two_ups_at_once_one_wins(site: Site) -> None:
    path, name = site.spec("accel: tcg\ndevices: virtio\n")
    processes = [site.start("up", path) for _ in range(6)]
    ended = [(process.communicate(timeout=PATIENCE), process.returncode) for process in processes]
    assert {status for _, status in ended} <= {0, 4}
    assert any(status == 0 for _, status in ended)
    for (_, err), status in ended:
        assert "Traceback" not in err
        if status == 4:
            assert "being worked on by another vmctl" in err
    assert boots(site, name) == 1
    site.run("down", "-y", name)


def test_orphans_are_shown_and_removed_when_asked(site: Site) -> None:
    one, two = site.name("one"), site.name("two")
    path = site.specs / f"{one}.yaml"
    head = f"project: {one}\ndefaults: {{image: tiny, memory: 128MiB, mode: full}}\nvms:\n"
    path.write_text(
        f"{head}  {one}:\n  {two}:\n".replace(":\n", ": {}\n").replace("vms: {}", "vms:")
    )
    site.run("up", "--no-wait", str(path))
    path.write_text(f"{head}  {one}: {{}}\n")
    result = site.run("up", "--no-wait", str(path))
    assert two in result.err
    assert "--remove-orphans" in result.err
    asked = site.run("up", "--no-wait", "--remove-orphans", str(path), status=2)
    assert "-y" in asked.err
    assert site.status(two)["state"] == "running"
    site.run("up", "--no-wait", "--remove-orphans", "-y", str(path))
    site.run("status", two, status=3)
    site.run("down", "-y", str(path))


def test_a_missing_cdrom_is_refused_before_anything_exists(site: Site) -> None:
    path, name = site.spec("mode: full\ncdroms: [./no-such.iso]\n")
    refused = site.run("up", path, status=2)
    assert f"{path}:6:10: error: there is no file" in refused.err
    assert not (site.home / "machines" / name).exists()


def test_render_has_no_side_effect(site: Site, tmp_path: pathlib.Path) -> None:
    path, name = site.spec("mode: full\n")
    nowhere = tmp_path / "store"
    xml = site.run("render", path, VMCTL_HOME=str(nowhere)).out
    assert f"<name>{name}</name>" in xml
    assert not nowhere.exists()
    explained = site.run("render", "--explain", path).out
    assert "<!-- spec name -->" in explained
    machine = json.loads(site.run("render", "--json", path).out)[0]
    assert machine["mode"] == "full"


def test_what_is_set_on_the_command_line_is_what_is_shown(site: Site) -> None:
    path, _name = site.spec("accel: tcg\ndevices: virtio\n")
    other = site.name()
    result = site.run("up", path, "--no-wait", "--set", f"name={other}")
    assert f"vmctl console {other}" in result.out
    site.run("down", "-y", other)
