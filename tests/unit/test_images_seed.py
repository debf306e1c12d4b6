"""What is in a seed: merged, byte-exact, and the same whenever it is made of the same."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest
import yaml

from tests import replay
from vmctl.images import seed
from vmctl.machine.model import Machine
from vmctl.machine.payload import Payload

KEYS = seed.Keys(
    login="ssh-ed25519 AAAAlogin vmctl@web",
    host_private="-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n-----END OPENSSH PRIVATE KEY-----\n",
    host_public="ssh-ed25519 AAAAhost root@web",
)
CLOUD = dataclasses.replace(replay.DISTRIBUTION, name="cloud", cloud_init=True, user="debian")


@pytest.fixture
def made(tmp_path: pathlib.Path):  # type: ignore[no-untyped-def]
    def make(text: str = "") -> Machine:
        path = tmp_path / "vmctl.yaml"
        path.write_text(f"name: web\nimage: cloud\n{text}")
        around = replay.surroundings(replay.host("kvm-intel-fine"), CLOUD)
        return replay.machines(path, around)[0]

    return make


def content(machine: Machine) -> seed.Content:
    assert machine.payload is not None
    return seed.content(machine, machine.payload, KEYS)


def config(data: bytes) -> Any:
    assert data.startswith(b"#cloud-config\n")
    return yaml.safe_load(data)


def test_the_images_own_user_gets_the_machines_key(made) -> None:  # type: ignore[no-untyped-def]
    machine = made("ssh_keys: [ssh-ed25519 " + EXTRA + "]\n")
    found = content(machine)
    assert config(found.user_data)["user"] == {"name": "debian"}
    assert config(found.user_data)["ssh_keys"]["ed25519_private"] == KEYS.host_private
    meta = yaml.safe_load(found.meta_data)
    assert meta["public-keys"] == [KEYS.login, f"ssh-ed25519 {EXTRA}"]
    assert meta["local-hostname"] == "web"
    assert found.vendor_data == b""


EXTRA = "AAAAC3NzaC1lZDI1NTE5AAAAIC6I19JCrsT/bHQ7gzr0BoR8v7YVnXUWh47Nl5skD4YV"


def test_root_may_log_in_where_root_is_the_user(made) -> None:  # type: ignore[no-untyped-def]
    assert config(content(made("user: root\n")).user_data)["disable_root"] is False
    assert "disable_root" not in config(content(made("user: dev\n")).user_data)


def test_lists_of_the_user_come_after_ours_and_the_user_wins_elsewhere(made) -> None:  # type: ignore[no-untyped-def]
    machine = made(
        "user: dev\n"
        "cloud_init:\n"
        "  users: [{name: alice}, default]\n"
        "  manage_etc_hosts: no\n"
        "  ssh: {emit_keys_to_console: yes, other: 1}\n"
        "  runcmd: [[echo, 22:22]]\n"
        "  write_files: [{path: /x, permissions: 0644, content: 'a: \"b\" ü 😀'}]\n"
    )
    found = config(content(machine).user_data)
    assert found["users"] == ["default", {"name": "alice"}]
    assert found["user"] == {"name": "dev"}
    assert found["manage_etc_hosts"] is False
    assert found["ssh"] == {"emit_keys_to_console": True, "other": 1}
    assert found["runcmd"] == [["echo", "22:22"]]
    assert found["write_files"][0]["permissions"] == 0o644
    assert found["write_files"][0]["content"] == 'a: "b" ü 😀'
    assert found["ssh_keys"]["ed25519_public"] == KEYS.host_public


@pytest.mark.parametrize(
    "data",
    [
        b"#!/bin/sh\necho '\xff\x00'\n",
        b"#cloud-config\r\nusers: []\r\n",
        b"\x1f\x8b\x08\x00compressed",
        b"Content-Type: multipart/mixed; boundary=x\n\n--x--\n",
    ],
)
def test_user_data_stays_byte_for_byte(made, tmp_path, data) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "user-data").write_bytes(data)
    found = content(made("user: dev\nuser_data: ./user-data\n"))
    assert found.user_data == data
    # What vmctl generates lies below it.
    assert config(found.vendor_data)["user"] == {"name": "dev"}
    assert config(found.vendor_data)["ssh_keys"]["ed25519_private"] == KEYS.host_private


def test_an_empty_user_data_is_still_a_seed(made, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "user-data").write_bytes(b"")
    found = content(made("user_data: ./user-data\n"))
    assert {"user-data", "meta-data"} <= set(found.files())


def test_the_network_is_found_by_mac(made) -> None:  # type: ignore[no-untyped-def]
    machine = made(
        "networks:\n"
        "  - {kind: user}\n"
        "  - {kind: nat, address: 192.168.150.7}\n"
        "  - {kind: bridge, bridge: br0, address: 10.0.0.5/24, gateway: 10.0.0.1, dns: [9.9.9.9]}\n"
    )
    cards = yaml.safe_load(content(machine).network_config)["ethernets"]
    assert [cards[name]["match"]["macaddress"] for name in cards] == [
        nic.mac for nic in machine.nics
    ]
    assert cards["nic0"]["dhcp4"] is True
    assert cards["nic1"]["dhcp4"] is True  # reserved in the network's DHCP server
    assert cards["nic2"] == {
        "match": {"macaddress": machine.nics[2].mac},
        "addresses": ["10.0.0.5/24"],
        "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}],
        "nameservers": {"addresses": ["9.9.9.9"]},
    }
    assert yaml.safe_load(content(made("networks: []\n")).network_config) == {"config": "disabled"}


def test_the_instance_stays_until_the_machine_is_another(made) -> None:  # type: ignore[no-untyped-def]
    def instance(text: str) -> str:
        return str(json.loads(content(made(text)).meta_data)["instance-id"])

    before = instance("cloud_init: {packages: [a]}\n")
    assert before == instance("cloud_init: {packages: [a]}\nmemory: 2GiB\n")
    assert before == instance(
        "cloud_init: {packages: [a]}\nnetworks: [{kind: user}, {kind: nat}]\n"
    )
    others = [
        instance("cloud_init: {packages: [b]}\n"),
        instance("cloud_init: {packages: [a]}\nhostname: other\n"),
        instance("cloud_init: {packages: [a]}\nuser: other\n"),
    ]
    assert len({before, *others}) == 4


def test_the_digest_tells_what_the_image_was_made_of() -> None:
    one = seed.Content(user_data=b"a", meta_data=b"b", network_config=b"c")
    assert one.digest == dataclasses.replace(one).digest
    assert one.digest != dataclasses.replace(one, user_data=b"ab", meta_data=b"").digest
    assert one.digest != dataclasses.replace(one, vendor_data=b"d").digest


def test_a_payload_survives_its_file() -> None:
    payload = Payload(
        ssh_keys=("ssh-ed25519 A",), cloud_init={"a": [None, True, 1.5]}, user_data=b"\xff\x00"
    )
    assert Payload.from_dict(json.loads(json.dumps(payload.as_dict()))) == payload
    assert Payload.from_dict(Payload().as_dict()) == Payload()


def test_secrets_are_in_no_output(made) -> None:  # type: ignore[no-untyped-def]
    from vmctl.machine.xml import domain

    machine = made(
        "cloud_init: {password: hunter2}\nprovision: [{script: s3cr3t, env: {A: t0p}}]\n"
    )
    told = [json.dumps(machine.as_dict()), repr(machine), domain.write(machine).text()]
    assert all(word not in text for text in told for word in ("hunter2", "s3cr3t", "t0p"))
    assert all(machine.cloud_init in text for text in told)
