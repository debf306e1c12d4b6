"""When a command may go in without asking libvirt."""

from __future__ import annotations

import pathlib

import pytest

from vmctl.guest import ssh
from vmctl.lifecycle import remembered
from vmctl.store import files, records
from vmctl.store.layout import Layout
from vmctl.store.records import Record

FACTS = {"uuid": "u", "uri": "qemu:///system", "user": "root", "ssh_port": 2222, "boot_id": 7}


@pytest.fixture
def layout(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    monkeypatch.setattr(ssh, "shared", lambda _access: True)
    return Layout(tmp_path)


def remember(layout: Layout, **changes: object) -> None:
    place = layout.machine("web")
    files.make_directory(place.directory)
    facts = {"name": "web", "project": "p", "mode": "tcg-virtio", **FACTS, **changes}
    records.write(place, Record(**facts))  # type: ignore[arg-type]


def test_a_connection_that_is_open(layout: Layout) -> None:
    remember(layout)
    found = remembered.access(layout, "web", None)
    assert found is not None
    assert (found.host, found.port, found.user, found.patience) == ("127.0.0.1", 2222, "root", 10)
    assert (found.run, found.alias, found.pinned) == ("u-7-0", "vmctl-web", False)
    assert remembered.access(layout, "web", "qemu:///system") is not None


def test_nothing_that_is_not_sure(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remembered.access(layout, "web", None) is None
    for changes in ({"ssh_port": 0}, {"user": ""}):
        remember(layout, **changes)
        assert remembered.access(layout, "web", None) is None
    remember(layout)
    assert remembered.access(layout, "web", "qemu:///session") is None
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "qemu:///session")
    assert remembered.access(layout, "web", None) is None
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI")
    monkeypatch.setattr(ssh, "shared", lambda _access: False)
    assert remembered.access(layout, "web", None) is None
