"""Public keys are told from damaged ones, from private ones and from paths."""

from __future__ import annotations

import base64

import pytest

from vmctl.spec import public_key

BODY = "AAAAC3NzaC1lZDI1NTE5AAAAIC6I19JCrsT/bHQ7gzr0BoR8v7YVnXUWh47Nl5skD4YV"
RSA = base64.b64encode(b"\x00\x00\x00\x07ssh-rsa" + b"\x00\x00\x00\x01\x03").decode()


@pytest.mark.parametrize(
    "line", [f"ssh-ed25519 {BODY}", f"ssh-ed25519 {BODY} me@home of mine", f"ssh-rsa {RSA}"]
)
def test_keys(line: str) -> None:
    assert public_key.objection(line) == ""
    assert public_key.looks_like_one(line)


@pytest.mark.parametrize(
    "line",
    [
        f"ssh-ed25519 {BODY[:-20]}!",
        f"ssh-ed25519 {BODY[:20]}",
        f"ssh-rsa {BODY}",
        f"ssh-ed25519 {BODY[4:]}",
        "ssh-ed25519",
        "ssh-ed25519 ",
        f"ssh-dss {BODY}",
        f'command="x" ssh-ed25519 {BODY}',
        f"ssh-ed25519 {'A' * 10_000}",
    ],
)
def test_damaged_keys(line: str) -> None:
    assert public_key.objection(line)


@pytest.mark.parametrize("text", ["./id.pub", "/home/me/ssh-ed25519", "ssh-key.pub", "keys.txt"])
def test_paths_are_no_keys(text: str) -> None:
    assert not public_key.looks_like_one(text)


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl",
        "-----BEGIN RSA PRIVATE KEY-----",
        "PuTTY-User-Key-File-3: ssh-ed25519",
    ],
)
def test_private_keys(text: str) -> None:
    assert public_key.is_private(text)


def test_the_lines_of_a_file() -> None:
    assert public_key.lines("# mine\n\n  ssh-ed25519 A  \nssh-rsa B\n") == [
        "ssh-ed25519 A",
        "ssh-rsa B",
    ]
