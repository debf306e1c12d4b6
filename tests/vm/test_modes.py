"""Each mode that runs without KVM, booted for real and looked at from inside."""

from __future__ import annotations

import pytest

from tests.vm.conftest import Site

pytestmark = pytest.mark.vm

DRIVERS = (
    "for d in /sys/bus/pci/devices/*/driver; do basename $(readlink -f $d); done"
    "; for d in /sys/bus/virtio/devices/*/driver; do basename $(readlink -f $d); done"
)
DISK = "disks: [{name: data, size: 64MiB}]\n"


@pytest.fixture(scope="module")
def full(site: Site) -> str:
    return site.up(f"mode: full\n{DISK}")


@pytest.fixture(scope="module")
def tcg_virtio(site: Site) -> str:
    return site.up(f"accel: tcg\ndevices: virtio\n{DISK}")


def test_full_emulation_shows_the_guest_no_virtio_device(site: Site, full: str) -> None:
    drivers = site.console(full, DRIVERS).split()
    assert "ahci" in drivers
    assert "e1000e" in drivers
    assert not [driver for driver in drivers if "virtio" in driver]
    assert site.console(full, "ls /dev/virtio-ports").endswith("No such file or directory")
    assert "sda" in site.console(full, "ls /sys/block")


def test_tcg_virtio_shows_the_guest_virtio_devices(site: Site, tcg_virtio: str) -> None:
    drivers = site.console(tcg_virtio, DRIVERS).split()
    assert {"virtio_blk", "virtio_net", "virtio_balloon", "virtio_rng"} <= set(drivers)
    # The q35 mainboard has an AHCI controller in any case; nothing hangs on it.
    assert not {"e1000e", "e1000"} & set(drivers)
    blocks = site.console(tcg_virtio, "ls /sys/block").split()
    assert "vda" in blocks
    assert not [block for block in blocks if block.startswith("sd")]
    assert "org.qemu.guest_agent.0" in site.console(
        tcg_virtio, "cat /sys/class/virtio-ports/*/name"
    )


@pytest.mark.parametrize("machine", ["full", "tcg_virtio"])
def test_qemu_itself_says_what_runs_the_guest(
    site: Site, machine: str, request: pytest.FixtureRequest
) -> None:
    status = site.status(request.getfixturevalue(machine))
    assert status["accel"] == "tcg"
    assert status["state"] == "running"
    assert status["ready"] is True
    assert status["drift"] == []


@pytest.mark.parametrize("machine", ["full", "tcg_virtio"])
def test_no_mode_shows_nesting_unless_asked(
    site: Site, machine: str, request: pytest.FixtureRequest
) -> None:
    name = request.getfixturevalue(machine)
    assert site.console(name, "grep -c -w svm /proc/cpuinfo") == "0"


def test_nested_gives_the_guest_amd_v(site: Site) -> None:
    name = site.up("accel: tcg\ndevices: virtio\nnested: true\nmemory_max: 128MiB\n")
    assert site.console(name, "grep -c -w svm /proc/cpuinfo") == "1"
    site.run("down", "-y", name)


def test_mode_auto_says_loudly_that_it_fell_back(site: Site) -> None:
    path, name = site.spec("mode: auto\n")
    plan = site.run("up", "--dry-run", "--json", path).json
    mode = plan["machines"][0]["mode"]
    result = site.run("up", path)
    if mode == "tcg-virtio":
        assert "KVM cannot be used" in result.err
    else:
        assert mode == "paravirt"
    site.run("down", "-y", name)


@pytest.mark.parametrize("mode", ["hardware", "paravirt"])
def test_a_mode_that_cannot_run_is_refused_before_anything_exists(site: Site, mode: str) -> None:
    path, name = site.spec(f"mode: {mode}\n")
    verdict = site.run("doctor", "--mode", mode, "--json", status=None)
    if verdict.status == 0:
        pytest.skip("KVM works on this host")
    result = site.run("up", path, status=5)
    assert mode in result.err
    assert verdict.json["verdict"]["cause"][:40] in " ".join(result.err.split())
    assert not (site.home / "machines" / name).exists()


@pytest.mark.parametrize("firmware", ["uefi", "uefi-secure"])
@pytest.mark.long
def test_uefi(site: Site, firmware: str) -> None:
    """Under Secure Boot OVMF starts the host's kernel by its old entry, outside the EFI world."""
    path, name = site.spec(f"accel: tcg\ndevices: virtio\nfirmware: {firmware}\ntpm: true\n")
    # The firmware has the initramfs in memory twice for a while.
    site.run("up", path, "--set", "memory=512MiB")
    if firmware == "uefi":
        assert site.console(name, "ls -d /sys/firmware/efi") == "/sys/firmware/efi"
    assert site.status(name)["drift"] == []
    nvram = site.home / "machines" / name / "nvram.fd"
    assert nvram.stat().st_mode & 0o777 == 0o600
    site.run("stop", name)
    site.run("start", name)
    site.run("down", "-y", name)
    assert not nvram.parent.exists()
