"""Which account QEMU runs as, and whether /dev/kvm is open to it."""

from __future__ import annotations

import pathlib

import pytest

from vmctl.host import accounts
from vmctl.host.facts import DeviceNode

OPEN = DeviceNode(path="/dev/kvm", present=True, character=True, mode=0o666, group="kvm", gid=1)
CLOSED = DeviceNode(path="/dev/kvm", present=True, character=True, mode=0o600)


def configure(root: pathlib.Path, text: str) -> pathlib.Path:
    file = root / "etc/libvirt/qemu.conf"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return root


@pytest.mark.parametrize("name", ['"nobody"', "'nobody'", '"+65534"', '"65534"'])
def test_configured_account(tmp_path: pathlib.Path, name: str) -> None:
    root = configure(tmp_path, f'#user = "root"\nuser = {name}\n')
    found = accounts.qemu_user(root, OPEN)
    assert found is not None
    assert (found.name, found.uid, found.opens_kvm) == ("nobody", 65534, True)
    closed = accounts.qemu_user(root, CLOSED)
    assert closed is not None
    assert not closed.opens_kvm


def test_configured_group_counts(tmp_path: pathlib.Path) -> None:
    node = DeviceNode(path="/dev/kvm", present=True, character=True, mode=0o660, gid=7)
    without = accounts.qemu_user(configure(tmp_path / "a", 'user = "nobody"\n'), node)
    with_it = accounts.qemu_user(configure(tmp_path / "b", 'user="nobody"\ngroup="+7"\n'), node)
    assert without is not None
    assert with_it is not None
    assert (without.opens_kvm, with_it.opens_kvm) == (False, True)


def test_root_opens_everything(tmp_path: pathlib.Path) -> None:
    found = accounts.qemu_user(configure(tmp_path, 'user = "root"\n'), CLOSED)
    assert found is not None
    assert found.opens_kvm


def test_an_account_that_does_not_exist(tmp_path: pathlib.Path) -> None:
    root = configure(tmp_path, 'user = "no-such-account"\n')
    assert accounts.qemu_user(root, OPEN) is None


def test_names_of_what_has_none() -> None:
    assert accounts.group_name(3999999999) == "3999999999"
    assert accounts.user_name(3999999999) == "3999999999"
