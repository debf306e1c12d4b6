"""Every template that comes with vmctl does what it says: it is brought up, looked at, removed."""

from __future__ import annotations

import pathlib
import shutil
import socket
import tempfile
from typing import Any

import libvirt
import pytest
import yaml

from tests.vm.conftest import Site
from vmctl import shipped

pytestmark = pytest.mark.vm

TEMPLATES = {path.stem: path for path in sorted(shipped.directory("templates").glob("*.yaml"))}

BOOTED = (
    "count",
    "disks",
    "forward",
    "full",
    "hello",
    "lab",
    "mounts",
    "nested",
    "tcg-virtio",
    "two-machines",
)
SLOW = ("secure-boot-tpm", "uefi")
"""UEFI firmware takes half a minute under TCG."""
ELSEWHERE = {
    "debian": "test_cloud_init boots such machines",
    "lab-host": "tests/nested boots it",
}
NEEDS_KVM = ("hardware", "paravirt")
NOT_BOOTED = {"installer": "it needs a CD-ROM image that a person brings"}


def test_every_template_is_booted_or_there_is_a_reason() -> None:
    """A new template is put into one of the lists above."""
    groups = (BOOTED, SLOW, NEEDS_KVM, tuple(NOT_BOOTED), tuple(ELSEWHERE))
    listed = [name for group in groups for name in group]
    assert sorted(listed) == sorted(TEMPLATES)
    assert all(NOT_BOOTED.values())


class Copy:
    """A template as it is shipped, but for names and ports that other tests may use as well."""

    def __init__(self, site: Site, template: str) -> None:
        self.site = site
        self.data: dict[str, Any] = yaml.safe_load(TEMPLATES[template].read_text())
        self.names: list[str] = []
        self.forwards: list[int] = []
        self._rename()
        self._move_ports()
        self.data["project"] = self.names[0]
        self.path = self._directory() / f"{self.names[0]}.yaml"
        self.path.write_text(yaml.safe_dump(self.data, sort_keys=False))

    def _directory(self) -> pathlib.Path:
        """Return where the copy lies, with the directories that it shares beside it."""
        mounts = self.data.get("mounts", ())
        if not mounts:
            return self.site.specs
        place = pathlib.Path(tempfile.mkdtemp(prefix="vmctl-share-", dir="/var/tmp"))
        place.chmod(0o755)
        for mount in mounts:
            (place / mount["host"]).mkdir()
        return place

    def _rename(self) -> None:
        if "vms" not in self.data:
            self.data["name"] = self.site.name(self.data["name"])
            self.names = [self.data["name"]]
            return
        new = {old: self.site.name(old) for old in self.data["vms"]}
        machines = {new[old]: dict(machine or {}) for old, machine in self.data["vms"].items()}
        for name, machine in machines.items():
            if "needs" in machine:
                machine["needs"] = [new[need] for need in machine["needs"]]
            count = machine.get("count")
            self.names += [f"{name}-{number + 1}" for number in range(count)] if count else [name]
        self.data["vms"] = machines
        self.site.claim(*self.names)

    def _move_ports(self) -> None:
        for forward in self.data.get("forwards", ()):
            with socket.socket() as trial:
                trial.bind(("127.0.0.1", 0))
                forward["host"] = trial.getsockname()[1]
            self.forwards.append(forward["host"])


def live_and_go(site: Site, copy: Copy, connection: libvirt.virConnect) -> None:
    """Bring a copy up, look at each machine, and remove everything."""
    site.run("up", str(copy.path))
    rows = {row["name"]: row for row in site.run("ps", str(copy.path), "--json").json}
    assert sorted(rows) == sorted(copy.names)
    for name, row in rows.items():
        assert (row["state"], row["ready"]) == ("running", True), name
        status = site.status(name)
        assert (status["drift"], status["interrupted"]) == ([], "")
        assert status["accel"] == ("kvm" if row["mode"] in ("hardware", "paravirt") else "tcg")
    if copy.forwards:
        with socket.create_connection(("127.0.0.1", copy.forwards[0]), timeout=60) as client:
            assert client.recv(16) == b"SSH-2.0-dropbear"
    again = site.run("up", "--dry-run", "--json", str(copy.path)).json
    for plan in again["machines"]:
        assert set(plan["actions"]) <= {"forward ports", "wait until ready"}
        assert (plan["waiting"], plan["drift"]) == ([], [])
    site.run("down", "-y", "--delete-kept", str(copy.path))
    assert not {domain.name() for domain in connection.listAllDomains()} & set(copy.names)
    assert not [name for name in copy.names if (site.home / "machines" / name).exists()]


@pytest.mark.parametrize(
    "template", [*BOOTED, *(pytest.param(name, marks=pytest.mark.long) for name in SLOW)]
)
def test_boots(site: Site, guest_uri: libvirt.virConnect, template: str) -> None:
    copy = Copy(site, template)
    live_and_go(site, copy, guest_uri)
    if copy.path.parent != site.specs:
        shutil.rmtree(copy.path.parent)


@pytest.mark.parametrize("template", NEEDS_KVM)
def test_boots_where_there_is_kvm(site: Site, guest_uri: libvirt.virConnect, template: str) -> None:
    """Elsewhere it is refused, before anything exists."""
    copy = Copy(site, template)
    if site.run("doctor", "--mode", template, "--json", status=None).status == 0:
        live_and_go(site, copy, guest_uri)
        return
    result = site.run("up", str(copy.path), status=5)
    assert f"'{template}' needs KVM" in result.err
    assert not (site.home / "machines" / copy.names[0]).exists()


def test_installer_is_rendered_with_the_image_that_a_person_brings(site: Site) -> None:
    copy = Copy(site, "installer")
    medium = copy.path.parent / "installer.iso"
    medium.write_bytes(bytes(1 << 20))
    xml = site.run("render", str(copy.path)).out
    medium.unlink()
    assert 'device="cdrom"' in xml
    assert str(medium) in xml
    assert not (site.home / "machines" / copy.names[0]).exists()
