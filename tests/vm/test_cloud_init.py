"""Debian guests with cloud-init: who gets in, what is carried out, and what a start makes again.

Two machines, each booted as rarely as can be: one with virtio devices whose kernel QEMU loads
itself, and one with emulated devices that starts from its disk.
"""

from __future__ import annotations

import base64
import dataclasses
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.vm.conftest import PATIENCE, Site

HOST, ADDRESS = "192.168.234.1", "192.168.234.7"
USER_DATA = "#!/bin/sh\n# ü, a tab\t, spaces   \r\necho ran >> /var/ran-user-data\nexit 3".encode()
"""What an editor would change: line ends of two kinds, spaces before one, none at the end."""


@dataclasses.dataclass
class Guest:
    """A machine that is up, and the files beside its spec."""

    site: Site
    name: str
    spec: str

    @property
    def files(self) -> pathlib.Path:
        return self.site.home / "machines" / self.name

    def ssh(self, command: str, *options: str, status: int = 0) -> str:
        """Run a command over ssh as ~/.ssh/config would have it: nothing of vmctl is in it."""
        done = subprocess.run(
            ["ssh", "-F", self.files / "ssh.config", *options, self.name, command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == status, done
        return done.stdout


@pytest.fixture(scope="module")
def bridge() -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("only root can make a bridge")
    name = f"tc{os.getpid() % 100000}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, timeout=30)

    ip("link", "add", name, "type", "bridge")
    ip("addr", "add", f"{HOST}/24", "dev", name)
    ip("link", "set", name, "up")
    yield name
    ip("link", "delete", name)


@pytest.fixture(scope="module")
def merged(site: Site, debian: str, bridge: str) -> Iterator[Guest]:
    """Virtio, direct boot, `cloud_init` merged into what vmctl generates."""
    name = site.name("ci")
    path = site.specs / f"{name}.yaml"
    path.write_text(
        f"""
name: {name}
project: {name}
image: {debian}
boot: kernel
accel: tcg
devices: virtio
memory: 512MiB
disk: 6GiB
hostname: Inner.example.org
user: dev
networks:
  - {{kind: user}}
  - {{kind: bridge, bridge: {bridge}, address: {ADDRESS}/24}}
cloud_init:
  users: [{{name: alice, gecos: Alice}}]
  write_files:
    - {{path: /etc/written, content: "secret: ü\\n", permissions: '0600'}}
  runcmd:
    - echo ran >> /var/ran
"""
    )
    site.run("up", str(path))
    yield Guest(site, name, str(path))
    site.run("down", "-y", name)


def test_the_first_login_is_verified(merged: Guest) -> None:
    strict = ("-o", "StrictHostKeyChecking=yes")
    # Whose the host key is was known before the first start.
    assert merged.ssh("id -un; hostname", *strict).split() == ["dev", "Inner"]
    key = (merged.files / "ssh_host_ed25519_key.pub").read_text().split()[1]
    assert key in merged.ssh("sudo cat /etc/ssh/ssh_host_ed25519_key.pub")
    assert merged.ssh("ls /etc/ssh/ssh_host_*.pub").count("\n") == 1


def test_the_user_may_become_root_and_has_a_name_for_the_machine(merged: Guest) -> None:
    assert merged.ssh("sudo -n id -u; hostname -f").split() == ["0", "Inner.example.org"]


def test_what_the_spec_says_is_carried_out_besides_our_own(merged: Guest) -> None:
    assert merged.ssh("id -un alice; cat /var/ran").split() == ["alice", "ran"]
    assert merged.ssh("sudo cat /etc/written; stat -c %a /etc/written") == "secret: ü\n600\n"


def test_the_file_system_grows_with_the_disk(merged: Guest) -> None:
    kilobytes = int(merged.ssh("df --output=size / | tail -n 1"))
    assert kilobytes > 5 << 20


def test_a_fixed_address_on_a_bridge(merged: Guest) -> None:
    assert f"{ADDRESS}/24" in merged.ssh("ip -o -4 addr")
    ping = ["ping", "-c", "2", "-W", "10", ADDRESS]
    assert subprocess.run(ping, capture_output=True, timeout=60, check=False).returncode == 0


def test_it_is_ready_as_status_says(merged: Guest) -> None:
    status = merged.site.status(merged.name)
    assert status["ready"]
    assert status["drift"] == []
    assert status["machine"]["ready"]["when"] == "cloud-init"
    assert f"vmctl ssh {merged.name}" in merged.site.run("status", merged.name).out


def test_secrets_are_nowhere_but_in_private_files(merged: Guest) -> None:
    secrets = ["secret: ", (merged.files / "id_ed25519").read_text().splitlines()[2]]
    definition = subprocess.run(
        ["virsh", "-c", merged.site.uri, "dumpxml", "--inactive", merged.name],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    told = [definition, merged.site.run("render", merged.spec).out]
    told.append(merged.site.run("status", merged.name, "--json").out)
    told += [path.read_text("utf-8", "replace") for path in _command_lines()]
    assert not [text for text in told for secret in secrets if secret in text]
    for path in merged.files.iterdir():
        mode = path.stat().st_mode & 0o777
        assert mode == 0o600 or path.suffix == ".pub", path


def _command_lines() -> Iterator[pathlib.Path]:
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        if path.exists() and b"qemu-system" in path.read_bytes():
            yield path


def test_another_cloud_init_waits_for_a_new_machine(merged: Guest) -> None:
    before = pathlib.Path(merged.spec).read_text()
    try:
        pathlib.Path(merged.spec).write_text(before.replace("echo ran", "echo more"))
        said = merged.site.run("up", merged.spec).err
        assert "cloud_init: content" in said
        assert "only in a new machine" in said
    finally:
        pathlib.Path(merged.spec).write_text(before)


def test_a_lost_seed_is_made_again_and_a_restart_keeps_all(merged: Guest) -> None:
    site, seed = merged.site, merged.files / "seed.iso"
    keys = {path: path.read_bytes() for path in merged.files.glob("*ed25519*")}
    content = seed.read_bytes()
    merged.ssh("sudo sync")
    site.run("stop", "--force", merged.name)
    seed.unlink()
    site.run("start", merged.name)
    assert seed.read_bytes() == content
    assert {path: path.read_bytes() for path in merged.files.glob("*ed25519*")} == keys
    strict = ("-o", "StrictHostKeyChecking=yes")
    assert merged.ssh("cat /var/ran; hostname", *strict).split() == ["ran", "Inner"]
    assert f"{ADDRESS}/24" in merged.ssh("ip -o -4 addr")


@pytest.fixture(scope="module")
def raw(site: Site, debian: str) -> Iterator[Guest]:
    """Emulated devices, boot loader, and `user_data` of the user's own, which fails."""
    name = site.name("ud")
    path = site.specs / f"{name}.yaml"
    (site.specs / f"{name}-data").write_bytes(USER_DATA)
    path.write_text(
        f"""
name: {name}
project: {name}
image: {debian}
boot: disk
mode: full
memory: 512MiB
user: dev
user_data: ./{name}-data
"""
    )
    refused = site.run("up", str(path), status=8)
    assert "cloud-init in the guest failed" in refused.err
    assert "scripts" in refused.err
    yield Guest(site, name, str(path))
    site.run("down", "-y", name)


def test_user_data_arrives_byte_for_byte(raw: Guest) -> None:
    data = raw.ssh(
        "sudo mkdir -p /run/seed && sudo mount -o ro LABEL=CIDATA /run/seed && "
        "sudo base64 -w 0 /run/seed/user-data; cat /var/ran-user-data"
    )
    encoded, ran = data.replace("ran\n", ""), data.endswith("ran\n")
    assert base64.b64decode(encoded) == USER_DATA
    assert ran


def test_vmctl_gets_in_beside_user_data(raw: Guest) -> None:
    said = raw.ssh("id -un; hostname; sudo -n id -u", "-o", "StrictHostKeyChecking=yes").split()
    assert said == ["dev", raw.name, "0"]


def test_the_failed_machine_stays_for_a_look(raw: Guest) -> None:
    status = raw.site.status(raw.name)
    assert status["state"] == "running"
    assert not status["ready"]
