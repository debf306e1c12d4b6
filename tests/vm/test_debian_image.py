"""Boots the Debian image with plain QEMU: what the image itself must do, without libvirt."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from vmctl.deadline import Deadline
from vmctl.images import build, seed
from vmctl.machine.model import Image
from vmctl.store.layout import Layout

pytestmark = [pytest.mark.long, pytest.mark.vm]

PATIENCE = 400.0
"""Seconds for a boot under TCG on a busy machine; only a guard."""

FIRMWARE = pathlib.Path("/usr/share/OVMF")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    layout = Layout(tmp_path_factory.mktemp("store"))
    return build.ensure(layout, "debian-12-min", Deadline.after(1500), lambda *_: None)


@dataclasses.dataclass
class Seed:
    """A NoCloud seed and the key that it lets in."""

    key: pathlib.Path
    host_key: str
    file: pathlib.Path


@pytest.fixture(scope="module")
def seed_disk(tmp_path_factory: pytest.TempPathFactory) -> Seed:
    place = tmp_path_factory.mktemp("seed")
    for name in ("login", "host"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", place / name],
            check=True,
        )
    user_data = {
        "users": [
            {
                "name": "dev",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "shell": "/bin/bash",
                "ssh_authorized_keys": [(place / "login.pub").read_text().strip()],
            }
        ],
        "ssh_deletekeys": True,
        "ssh_keys": {
            "ed25519_private": (place / "host").read_text(),
            "ed25519_public": (place / "host.pub").read_text().strip(),
        },
        "bootcmd": [["sh", "-c", "echo early > /run/bootcmd"]],
        "write_files": [{"path": "/etc/written", "content": "by cloud-init\n"}],
        "runcmd": [["sh", "-c", "ip -4 route get 10.0.2.2 > /run/runcmd"]],
        "mounts": [["tmpfs", "/srv/mounted", "tmpfs", "size=1m"]],
    }
    network = {
        "version": 2,
        "ethernets": {
            "card": {
                "match": {"macaddress": "52:54:00:12:34:56"},
                "addresses": ["10.0.2.77/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "10.0.2.2"}],
                "nameservers": {"addresses": ["10.0.2.3"]},
            }
        },
    }
    files = {
        "user-data": b"#cloud-config\n" + json.dumps(user_data).encode(),
        "meta-data": b"instance-id: one\nlocal-hostname: web\n",
        "network-config": json.dumps(network).encode(),
    }
    (place / "seed.iso").write_bytes(seed.iso(files))
    return Seed(place / "login", (place / "host.pub").read_text().strip(), place / "seed.iso")


class Guest:
    """A QEMU process with its console, its monitor and a way in."""

    def __init__(self, directory: pathlib.Path, image: Image, words: Sequence[str]) -> None:
        self.directory = directory
        self.console = directory / "console.log"
        self.console.write_bytes(b"")
        self.disk = directory / "root.qcow2"
        subprocess.run(
            [
                *("qemu-img", "create", "-q", "-f", "qcow2", "-F", image.disk_format),
                *("-b", image.disk, self.disk, "6G"),
            ],
            check=True,
        )
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            self.port = chosen.getsockname()[1]
        self.process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
                *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "512"),
                *("-serial", f"file:{self.console}"),
                *("-qmp", f"unix:{directory}/qmp.sock,server=on,wait=off"),
                *("-drive", f"if=none,id=root,format=qcow2,cache=unsafe,file={self.disk}"),
                *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-10.0.2.77:22"),
                *words,
            ]
        )

    def said(self) -> str:
        return self.console.read_bytes().decode("utf-8", "replace").replace("\r", "")

    def wait_for(self, pattern: str) -> None:
        end = time.monotonic() + PATIENCE
        while not re.search(pattern, self.said(), re.MULTILINE):
            if time.monotonic() > end or self.process.poll() is not None:
                pytest.fail(f"no {pattern!r} on the console:\n{self.said()[-3000:]}")
            time.sleep(0.2)

    def ssh(self, seed_disk: Seed, command: str, status: int = 0) -> str:
        known = self.directory / "known_hosts"
        known.write_text(f"guest {seed_disk.host_key}\n")
        done = subprocess.run(
            [
                *("ssh", "-F", "none", "-i", seed_disk.key, "-p", str(self.port)),
                *("-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={known}"),
                *("-o", "HostKeyAlias=guest", "-o", "StrictHostKeyChecking=yes"),
                *("-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "dev@127.0.0.1", command),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout.strip()

    def qmp(self, execute: str) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.directory / "qmp.sock"))
            stream = connection.makefile("rwb")
            for request in ("qmp_capabilities", execute):
                stream.readline()
                stream.write(json.dumps({"execute": request}).encode() + b"\n")
                stream.flush()
            stream.readline()


@contextlib.contextmanager
def booted(directory: pathlib.Path, image: Image, *words: str) -> Iterator[Guest]:
    guest = Guest(directory, image, words)
    try:
        yield guest
    finally:
        guest.process.kill()
        guest.process.wait()


def emulated(chipset: str, card: str, seed_disk: Seed | None) -> list[str]:
    """Devices of a machine without virtio."""
    slots = ("ide.0", "ide.1")
    words = [
        *("-machine", chipset, "-device", f"ide-hd,drive=root,bus={slots[0]}"),
        *("-device", f"{card},netdev=net,mac=52:54:00:12:34:56"),
    ]
    if seed_disk:
        words += [
            *("-drive", f"if=none,id=seed,media=cdrom,readonly=on,file={seed_disk.file}"),
            *("-device", f"ide-cd,drive=seed,bus={slots[1]}"),
        ]
    return words


def paravirtual(seed_disk: Seed, agent: pathlib.Path) -> list[str]:
    return [
        *("-machine", "q35", "-device", "virtio-blk-pci,drive=root"),
        *("-device", "virtio-net-pci,netdev=net,mac=52:54:00:12:34:56"),
        *("-drive", f"if=none,id=seed,media=cdrom,readonly=on,file={seed_disk.file}"),
        *("-device", "ide-cd,drive=seed,bus=ide.1", "-device", "virtio-serial"),
        *("-chardev", f"socket,id=agent,path={agent},server=on,wait=off"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
    ]


def direct(image: Image) -> list[str]:
    return ["-kernel", image.kernel, "-initrd", image.initrd, "-append", image.cmdline]


def asked(agent: pathlib.Path, command: str) -> Any:
    """Ask the guest agent something."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(agent))
        connection.sendall(json.dumps({"execute": command}).encode() + b"\n")
        return json.loads(connection.makefile("rb").readline())["return"]


def repository(directory: pathlib.Path) -> pathlib.Path:
    """Make an apt repository with one package."""
    package = directory / "hello"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "usr/bin").mkdir(parents=True)
    (package / "usr/bin/vmctl-hello").write_text("#!/bin/sh\necho hello\n")
    (package / "usr/bin/vmctl-hello").chmod(0o755)
    control = "Package: vmctl-hello\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@n>\n"
    (package / "DEBIAN/control").write_text(control + "Description: says hello\n")
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", package, directory / "hello.deb"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(package)
    size = (directory / "hello.deb").stat().st_size
    digest = subprocess.run(
        ["sha256sum", directory / "hello.deb"], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    (directory / "Packages").write_text(
        f"{control}Filename: ./hello.deb\nSize: {size}\nSHA256: {digest}\nDescription: says hello\n"
    )
    return directory


def test_direct_boot_with_virtio(image: Image, seed_disk: Seed, tmp_path: pathlib.Path) -> None:
    agent = tmp_path / "agent.sock"
    words = [*direct(image), *paravirtual(seed_disk, agent)]
    with booted(tmp_path, image, *words) as guest:
        guest.wait_for(r"Cloud-init v\..* finished")
        assert guest.ssh(seed_disk, "hostname; cat /etc/written /run/bootcmd") == (
            "web\nby cloud-init\nearly"
        )
        assert "via 10.0.2.2" in guest.ssh(seed_disk, "ip route show default")
        assert "src 10.0.2.77" in guest.ssh(seed_disk, "cat /run/runcmd")
        assert guest.ssh(seed_disk, "findmnt -no SIZE /srv/mounted") == "1M"
        assert "status: done" in guest.ssh(seed_disk, "cloud-init status")
        assert guest.ssh(seed_disk, "systemctl --failed --plain --no-legend") == ""
        assert guest.ssh(seed_disk, "cat /proc/cmdline") == image.cmdline
        assert int(guest.ssh(seed_disk, "df --output=size -BM / | tail -1").strip("M ")) > 5000
        for module in ("9p", "9pnet_virtio", "virtiofs"):
            guest.ssh(seed_disk, f"sudo modprobe {module}")
        assert guest.ssh(seed_disk, "sudo passwd -S root").split()[1] == "L"
        assert asked(agent, "guest-ping") == {}
        place = repository(tmp_path)
        subprocess.run(
            ["tar", "-C", place, "-cf", tmp_path / "r.tar", "hello.deb", "Packages"], check=True
        )
        guest.ssh(seed_disk, "mkdir -p /tmp/r")
        with (tmp_path / "r.tar").open("rb") as archive:
            copy = base_command(guest, seed_disk, "tar -C /tmp/r -xf -")
            subprocess.run(copy, stdin=archive, check=True, timeout=PATIENCE)
        source = "deb [trusted=yes] file:/tmp/r ./"
        guest.ssh(seed_disk, f"echo '{source}' | sudo tee /etc/apt/sources.list > /dev/null")
        guest.ssh(seed_disk, "sudo apt-get -q update && sudo apt-get -q -y install vmctl-hello")
        assert guest.ssh(seed_disk, "vmctl-hello") == "hello"
        boot = guest.ssh(seed_disk, "cat /proc/sys/kernel/random/boot_id")
        guest.console.write_bytes(b"")
        guest.ssh(seed_disk, "sudo systemd-run -q --on-active=0.1 systemctl reboot")
        guest.wait_for(r"^web login:")
        guest.wait_for(r"Cloud-init v\..* finished")
        assert guest.ssh(seed_disk, "cat /proc/sys/kernel/random/boot_id") != boot
        guest.qmp("system_powerdown")
        assert guest.process.wait(PATIENCE) == 0


def base_command(guest: Guest, seed_disk: Seed, command: str) -> list[str | pathlib.Path]:
    return [
        *("ssh", "-F", "none", "-i", seed_disk.key, "-p", str(guest.port)),
        *("-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"),
        *("-o", f"UserKnownHostsFile={guest.directory / 'known_hosts'}"),
        *("-o", "HostKeyAlias=guest", "-o", "LogLevel=ERROR", "dev@127.0.0.1", command),
    ]


def test_bios_boot_of_an_old_board(image: Image, seed_disk: Seed, tmp_path: pathlib.Path) -> None:
    with booted(tmp_path, image, *emulated("pc", "e1000", seed_disk)) as guest:
        guest.wait_for(r"Cloud-init v\..* finished")
        assert guest.ssh(seed_disk, "lsblk -no FSTYPE /dev/sda1") == "ext4"
        assert int(guest.ssh(seed_disk, "df --output=size -BM / | tail -1").strip("M ")) > 5000
        assert "BOOT_IMAGE" in guest.ssh(seed_disk, "cat /proc/cmdline")
        # What a newer kernel does when it is installed.
        guest.ssh(seed_disk, "sudo update-grub")
        assert f"root=UUID={image.cmdline.split()[0].removeprefix('root=UUID=')}" in guest.ssh(
            seed_disk, "grep -m 1 '^\\s*linux' /boot/grub/grub.cfg"
        )


def test_secure_boot(image: Image, tmp_path: pathlib.Path) -> None:
    code, variables = FIRMWARE / "OVMF_CODE_4M.secboot.fd", FIRMWARE / "OVMF_VARS_4M.ms.fd"
    if not code.exists():
        pytest.skip("UEFI firmware with Secure Boot is not installed")
    shutil.copy(variables, tmp_path / "vars.fd")
    words = [
        *emulated("q35,smm=on", "e1000e", None),
        *("-global", "driver=cfi.pflash01,property=secure,value=on"),
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}"),
        *("-drive", f"if=pflash,unit=1,format=raw,file={tmp_path}/vars.fd"),
    ]
    with booted(tmp_path, image, *words) as guest:
        # Without a seed nothing is set up and nobody is let in, but all starts.
        guest.wait_for(r"^debian login:")
        guest.qmp("system_powerdown")
        assert guest.process.wait(PATIENCE) == 0
    assert os.path.exists(guest.disk)
