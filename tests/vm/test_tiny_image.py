"""Boots the tiny image with plain QEMU: what the image itself must do, without libvirt."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from vmctl.deadline import Deadline
from vmctl.images import build
from vmctl.machine.model import Image
from vmctl.store.layout import Layout

pytestmark = pytest.mark.vm

PATIENCE = 120.0
MACHINES = {
    "q35 with AHCI and e1000e": (
        ["-machine", "q35"],
        ["ide-hd", "e1000e"],
        {"disk sda ahci", "net eth0 e1000e 10.0.2.15"},
    ),
    "pc with IDE and e1000": (
        ["-machine", "pc"],
        ["ide-hd", "e1000"],
        {"disk sda ata_piix", "net eth0 e1000 10.0.2.15"},
    ),
    "q35 with virtio": (
        ["-machine", "q35"],
        ["virtio-blk-pci", "virtio-net-pci"],
        {"disk vda virtio_blk", "net eth0 virtio_net 10.0.2.15"},
    ),
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    layout = Layout(tmp_path_factory.mktemp("store"))
    return build.ensure(layout, "tiny", Deadline.after(600), lambda *_: None)


class Guest:
    """A QEMU process with its console and its monitor."""

    def __init__(self, image: Image, directory: pathlib.Path, *words: str, extra: str = "") -> None:
        self.monitor = directory / "qmp.sock"
        self.console = b""
        self.process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
                *("-accel", "tcg", "-cpu", "max", "-m", "128", "-serial", "stdio"),
                *("-qmp", f"unix:{self.monitor},server=on,wait=off"),
                *("-kernel", image.kernel, "-initrd", image.initrd),
                *("-append", f"{image.cmdline} {extra}"),
                *words,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def read_until(self, pattern: str, seconds: float = PATIENCE) -> str:
        """Return the console from where the last call ended up to `pattern`."""
        assert self.process.stdout is not None
        end = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.console.decode("utf-8", "replace"), re.MULTILINE)
            if found:
                text = self.console.decode("utf-8", "replace")
                self.console = text[found.end() :].encode()
                return text[: found.end()]
            left = end - time.monotonic()
            ready = select.select([self.process.stdout], [], [], max(0.0, left))[0]
            chunk = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not chunk:
                pytest.fail(f"no {pattern!r} on the console:\n{self.console.decode()[-3000:]}")
            self.console += chunk.replace(b"\r", b"")

    def ready(self) -> str:
        return self.read_until(r"^vmctl-tiny: ready$")

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def command(self, line: str) -> str:
        """Run a command in the console's shell and return what it prints."""
        # The echo of the line must not look like the marker.
        self.type(f"{line}; echo E''ND")
        told = self.read_until(r"^END$").removesuffix("END")
        return re.split(r"E''ND[^\n]*\n", told)[-1]

    def qmp(self, execute: str, **arguments: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.monitor))
            stream = connection.makefile("rwb")
            stream.readline()
            for request in ({"execute": "qmp_capabilities"}, {"execute": execute}):
                if request["execute"] == execute and arguments:
                    request["arguments"] = arguments
                stream.write(json.dumps(request).encode() + b"\n")
                stream.flush()
                answer: dict[str, Any] = {}
                while "return" not in answer and "error" not in answer:
                    answer = json.loads(stream.readline())
            assert "return" in answer, answer
            return answer["return"]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def booted(image: Image, directory: pathlib.Path, *words: str, extra: str = "") -> Iterator[Guest]:
    guest = Guest(image, directory, *words, extra=extra)
    try:
        yield guest
    finally:
        guest.end()


def devices(disk: pathlib.Path, models: list[str], forward: int = 0) -> list[str]:
    hostfwd = f",hostfwd=tcp:127.0.0.1:{forward}-:22" if forward else ""
    return [
        *("-drive", f"file={disk},format=raw,if=none,id=disk"),
        *("-device", f"{models[0]},drive=disk"),
        *("-netdev", f"user,id=net{hostfwd}", "-device", f"{models[1]},netdev=net"),
    ]


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as stream:
        stream.truncate(64 << 20)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def banner(port: int) -> bytes:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as one:
            text = one.recv(64)
            if text:
                return text
        time.sleep(0.1)
    return b""


@pytest.mark.parametrize("kind", MACHINES)
def test_finds_its_devices_and_ends_by_the_power_button(
    image: Image, tmp_path: pathlib.Path, disk: pathlib.Path, kind: str
) -> None:
    machine, models, expected = MACHINES[kind]
    port = free_port()
    with booted(image, tmp_path, *machine, *devices(disk, models, port)) as guest:
        told = guest.ready()
        lines = {line.removeprefix("vmctl-tiny: ") for line in told.splitlines()}
        assert lines > expected, told
        assert "user space" in lines
        assert banner(port).startswith(b"SSH-2.0-dropbear")
        guest.qmp("system_powerdown")
        assert guest.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("kind", MACHINES)
def test_data_disk_keeps_what_was_written_over_a_reboot(
    image: Image, tmp_path: pathlib.Path, disk: pathlib.Path, kind: str
) -> None:
    machine, models, _ = MACHINES[kind]
    with booted(image, tmp_path, *machine, *devices(disk, models)) as guest:
        assert re.search(r"data /dev/[sv]da on /data", guest.ready())
        guest.command("echo kept > /data/note")
        guest.type("reboot")
        guest.ready()
        assert guest.command("cat /data/note") == "kept\n"
        guest.type("poweroff")
        assert guest.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("offset", [0, (1 << 20) - 8, (64 << 20) - 8])
def test_disk_with_content_is_never_formatted(
    image: Image, tmp_path: pathlib.Path, disk: pathlib.Path, offset: int
) -> None:
    with disk.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"precious")
    before = disk.read_bytes()
    machine, models, _ = MACHINES["q35 with virtio"]
    with booted(image, tmp_path, *machine, *devices(disk, models)) as guest:
        guest.ready()
    assert disk.read_bytes() == before


def test_blank_disk_is_left_alone_on_request(
    image: Image, tmp_path: pathlib.Path, disk: pathlib.Path
) -> None:
    machine, models, _ = MACHINES["q35 with virtio"]
    words = [*machine, *devices(disk, models)]
    with booted(image, tmp_path, *words, extra="vmctl.format=no") as guest:
        assert "data /dev" not in guest.ready()
    assert not any(disk.read_bytes())


def test_guest_agent_answers(image: Image, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "agent.sock"
    words = [
        *("-machine", "q35", "-device", "virtio-serial-pci", "-device", "virtio-rng-pci"),
        *("-chardev", f"socket,id=agent,path={path},server=on,wait=off"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
    ]
    with booted(image, tmp_path, *words) as guest:
        guest.ready()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(path))
            stream = connection.makefile("rwb")
            stream.write(b'{"execute": "guest-ping"}\n{"execute": "guest-get-osinfo"}\n')
            stream.flush()
            assert json.loads(stream.readline()) == {"return": {}}
            assert "kernel-release" in json.loads(stream.readline())["return"]
            stream.write(b'{"execute": "guest-shutdown"}\n')
            stream.flush()
            assert guest.process.wait(PATIENCE) == 0


def test_plugged_processor_is_taken_into_use(image: Image, tmp_path: pathlib.Path) -> None:
    with booted(image, tmp_path, "-machine", "q35", "-smp", "1,maxcpus=2") as guest:
        guest.ready()
        assert guest.command("nproc") == "1\n"
        slot = next(each for each in guest.qmp("query-hotpluggable-cpus") if "qom-path" not in each)
        guest.qmp("device_add", driver=slot["type"], id="cpu1", **slot["props"])
        guest.command("while [ $(nproc) = 1 ]; do usleep 100000; done")
        assert guest.command("nproc") == "2\n"


def test_lets_in_who_has_the_key_and_nobody_else(
    image: Image, tmp_path: pathlib.Path, disk: pathlib.Path
) -> None:
    for name in ("good", "other"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True
        )
    public = base64.b64encode((tmp_path / "good.pub").read_bytes()).decode()
    machine, models, _ = MACHINES["q35 with virtio"]
    port = free_port()

    def login(key: str) -> subprocess.CompletedProcess[bytes]:
        options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
        return subprocess.run(
            [
                *("ssh", "-F", "none", "-p", str(port), "-i", str(tmp_path / key)),
                *(word for option in (*options, "IdentitiesOnly=yes") for word in ("-o", option)),
                *("root@127.0.0.1", "cat /proc/sys/kernel/hostname"),
            ],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
        )

    words = [*machine, *devices(disk, models, port), "-device", "virtio-rng-pci"]
    extra = f"vmctl.hostname=crate vmctl.key={public}"
    with booted(image, tmp_path, *words, extra=extra) as guest:
        guest.ready()
        assert login("good").stdout == b"crate\n"
        refused = login("other")
        assert refused.returncode == 255
        assert b"Permission denied (publickey)" in refused.stderr


def test_boots_without_any_device(image: Image, tmp_path: pathlib.Path) -> None:
    with booted(image, tmp_path, "-machine", "q35") as guest:
        told = guest.ready()
        assert "net " not in told
        assert "disk " not in told


def test_firmware_that_needs_the_distributions_kernel_can_have_it(
    image: Image, tmp_path: pathlib.Path
) -> None:
    """UEFI starts no uncompressed kernel; the other one needs more memory while it unpacks."""
    other = dataclasses.replace(image, kernel=str(pathlib.Path(image.kernel).with_name("bzimage")))
    # Without AMD-V: what a spec without `nested` asks for, and what five-level paging fails on.
    with booted(other, tmp_path, "-machine", "q35", "-cpu", "max,svm=off") as guest:
        assert "clocksource tsc" in guest.ready()
        assert guest.command("readlink /proc/self/exe") == "/bin/busybox\n"


def test_too_little_memory_is_said(image: Image, tmp_path: pathlib.Path) -> None:
    """The kernel then unpacks only the first part of the initramfs, and goes on."""
    whole = pathlib.Path(image.initrd).read_bytes()
    (tmp_path / "part").write_bytes(whole[: len(whole) * 9 // 10])
    cut = dataclasses.replace(image, initrd=str(tmp_path / "part"))
    with booted(cut, tmp_path, "-machine", "q35") as guest:
        guest.read_until("^vmctl-tiny: too little memory")


def test_can_run_virtual_machines_where_the_processor_lets_it(
    image: Image, tmp_path: pathlib.Path
) -> None:
    """TCG's processor has AMD-V, so /dev/kvm works in a guest without KVM on this host."""
    with booted(image, tmp_path, "-machine", "q35") as guest:
        guest.ready()
        assert guest.command("ls /dev/kvm") == "/dev/kvm\n"
