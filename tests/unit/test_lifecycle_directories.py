"""Directories that guests get: there, readable to whoever asks and to QEMU's account."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Collection

import pytest

from tests import replay
from vmctl import errors
from vmctl.host import access as permissions
from vmctl.host import accounts
from vmctl.host.facts import QemuUser
from vmctl.lifecycle import directories
from vmctl.machine.model import Machine, Mount, Share

SYSTEM, SESSION = "qemu:///system", "qemu:///session"
QEMU = QemuUser(name="libvirt-qemu", uid=64055, gid=104, gids=(104,))


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "qemu_user", lambda root, node: QEMU)


@pytest.fixture
def shared(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A directory whose parents everybody can enter, as far as can be told."""
    judge = permissions.may

    def may(path: str | os.PathLike[str], uid: int, gids: Collection[int], wanted: int) -> bool:
        return pathlib.Path(path) in tmp_path.parents or judge(path, uid, gids, wanted)

    monkeypatch.setattr(permissions, "may", may)
    tmp_path.chmod(0o711)
    place = tmp_path / "outer" / "my files"
    place.mkdir(parents=True)
    return place


def machine(*mounts: Mount) -> Machine:
    (made,) = replay.machines(
        replay.TEMPLATES / "hello.yaml",
        replay.surroundings(replay.host("software-kvm-no-flags")),
        "accel=tcg",
        "devices=virtio",
    )
    return dataclasses.replace(made, mounts=mounts)


def refusal(mount: Mount, uri: str = SYSTEM) -> errors.HostError:
    with pytest.raises(errors.HostError) as caught:
        directories.require(machine(mount), uri)
    return caught.value


def test_fine(shared: pathlib.Path) -> None:
    for uri in (SYSTEM, SESSION):
        directories.require(machine(Mount(host=str(shared), guest="/x")), uri)
    directories.require(machine(), SYSTEM)


def test_a_directory_on_the_way_is_named(shared: pathlib.Path) -> None:
    shared.parent.chmod(0o700)
    refused = refusal(Mount(host=str(shared), guest="/x"))
    assert f"'libvirt-qemu', which may not enter '{shared.parent}'" in refused.message
    assert f"setfacl -m u:libvirt-qemu:x {shared.parent}" in refused.hint
    # QEMU is the user itself there, and virtiofsd is root.
    directories.require(machine(Mount(host=str(shared), guest="/x")), SESSION)
    mount = Mount(host=str(shared), guest="/x", writable=True, share=Share.VIRTIOFS)
    directories.require(machine(mount), SYSTEM)


def test_the_directory_itself(shared: pathlib.Path) -> None:
    shared.chmod(0o711)
    refused = refusal(Mount(host=str(shared), guest="/x"))
    assert f"may not read '{shared}'" in refused.message
    assert refused.hint.startswith(f"Let it: setfacl -m u:libvirt-qemu:rx '{shared}'")


def test_writable_through_9p_takes_the_right_to_write(shared: pathlib.Path) -> None:
    refused = refusal(Mount(host=str(shared), guest="/x", writable=True))
    assert f"may not write to '{shared}'" in refused.message
    assert ":rwx " in refused.hint
    shared.chmod(0o777)
    directories.require(machine(Mount(host=str(shared), guest="/x", writable=True)), SYSTEM)


def test_absence(shared: pathlib.Path) -> None:
    file = shared / "file"
    file.touch()
    assert directories.absence(str(shared)) == ""
    assert "no directory" in directories.absence(str(shared / "none"))
    assert "is not a directory" in directories.absence(str(file))
    assert "no directory" in refusal(Mount(host=str(shared / "none"), guest="/x")).message
