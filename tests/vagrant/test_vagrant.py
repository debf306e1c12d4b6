"""The Vagrantfile for real: Debian's Vagrant with its libvirt provider, under plain emulation.

The box is made of the lab host's image, so that nothing is fetched. Vagrant has a home, a pool and
a network of its own here.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import re
import shutil
import subprocess
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import libvirt
import pytest

from tests.nested.conftest import BUILD_SECONDS, COMMAND_SECONDS, build
from tests.vm.conftest import PATIENCE, Site, left_tidy, shared_home, site

__all__ = ["left_tidy", "shared_home", "site"]

pytestmark = [
    pytest.mark.vm,
    pytest.mark.long,
    pytest.mark.nested,
    pytest.mark.timeout(BUILD_SECONDS + 2 * COMMAND_SECONDS),
]

TOP = pathlib.Path(__file__).parents[2]
BOX = "vmctl/lab-host"
PROVIDERS = [
    *pathlib.Path("/usr/share").glob("rubygems-integration/*/gems/vagrant-libvirt-*"),
    *pathlib.Path("/usr/share").glob("gems/gems/vagrant-libvirt-*"),
]
OWN = """\
Vagrant.configure("2") do |config|
  config.vm.provider "libvirt" do |libvirt|
    libvirt.uri = "{uri}"
    libvirt.storage_pool_name = "{name}"
    libvirt.default_prefix = "{name}-"
    libvirt.management_network_name = "{name}"
    libvirt.management_network_address = "10.177.{subnet}.0/24"
  end
end
"""
COMPARISON = "--quick --modes host --rounds 1 --workloads cpu-integer,system-call"


class Vagrant:
    """Vagrant with the project's Vagrantfile, and nothing of anybody else's."""

    def __init__(self, site: Site, place: pathlib.Path) -> None:
        self.site = site
        self.name = site.name("vagrant")
        self.place = place
        self.pool = place / "pool"
        self.env = {
            **os.environ,
            "VAGRANT_CWD": str(TOP),
            "VAGRANT_HOME": str(place / "home"),
            "VAGRANT_DOTFILE_PATH": str(place / "state"),
            "VAGRANT_DEFAULT_PROVIDER": "libvirt",
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VMCTL_VAGRANT_BOX": BOX,
            "VMCTL_VAGRANT_DRIVER": "qemu",
            "VMCTL_VAGRANT_COMPARE": COMPARISON,
        }

    def run(self, *words: str) -> str:
        """Run vagrant; any status but 0 fails the test."""
        done = subprocess.run(
            ["vagrant", *words, "--no-color"],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def make_places(self, connection: libvirt.virConnect) -> None:
        """Make a home with settings of its own, and a pool."""
        home = self.place / "home"
        home.mkdir()
        # Which of these networks is free nobody can know beforehand.
        subnet = random.Random(self.name).randrange(1, 255)
        text = OWN.format(uri=self.site.uri, name=self.name, subnet=subnet)
        (home / "Vagrantfile").write_text(text)
        self.pool.mkdir()
        self.pool.chmod(0o711)
        connection.storagePoolCreateXML(
            f"<pool type='dir'><name>{self.name}</name>"
            f"<target><path>{self.pool}</path></target></pool>"
        )

    def left(self, connection: libvirt.virConnect) -> list[str]:
        """Return what there is in libvirt and in the pool besides the box itself."""
        everything = (*connection.listAllDomains(), *connection.listAllNetworks())
        found = [each.name() for each in everything if self.name in each.name()]
        return [*found, *(path.name for path in self.pool.glob(f"{self.name}*"))]


@pytest.fixture(scope="module")
def connection(site: Site) -> Iterator[libvirt.virConnect]:
    opened = libvirt.open(site.uri)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def vagrant(site: Site, connection: libvirt.virConnect) -> Iterator[Vagrant]:
    if shutil.which("vagrant") is None or not PROVIDERS:
        pytest.skip("this distribution has no vagrant with its libvirt provider")
    build(site)
    # Where QEMU's own account can reach the disks.
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="vmctl-vagrant-") as directory:
        place = pathlib.Path(directory)
        place.chmod(0o711)
        found = Vagrant(site, place)
        found.make_places(connection)
        try:
            yield found
        finally:
            _remove(found, connection)


def _remove(vagrant: Vagrant, connection: libvirt.virConnect) -> None:
    """Remove what a failed test has left, and the pool."""
    for domain in connection.listAllDomains():
        if domain.name().startswith(vagrant.name):
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
            with contextlib.suppress(libvirt.libvirtError):
                domain.undefine()
    for network in connection.listAllNetworks():
        if network.name() == vagrant.name:
            with contextlib.suppress(libvirt.libvirtError):
                network.destroy()
            with contextlib.suppress(libvirt.libvirtError):
                network.undefine()
    connection.storagePoolLookupByName(vagrant.name).destroy()


@pytest.mark.parametrize("driver", ["kvm", "qemu"])
def test_the_vagrantfile_is_valid_for_each_driver(driver: str, tmp_path: pathlib.Path) -> None:
    if shutil.which("vagrant") is None or not PROVIDERS:
        pytest.skip("this distribution has no vagrant with its libvirt provider")
    done = subprocess.run(
        ["vagrant", "validate"],
        env={
            **os.environ,
            "VAGRANT_CWD": str(TOP),
            "VAGRANT_HOME": str(tmp_path / "home"),
            "VAGRANT_DOTFILE_PATH": str(tmp_path / "state"),
            "VAGRANT_DEFAULT_PROVIDER": "libvirt",
            "VMCTL_VAGRANT_DRIVER": driver,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "validated successfully" in done.stdout


def test_a_box_comes_up_and_goes(vagrant: Vagrant, connection: libvirt.virConnect) -> None:
    box = vagrant.place / "lab-host.box"
    vagrant.site.run("image", "box", "lab-host", str(box))
    with tarfile.open(box) as archive:
        names = set(archive.getnames())
    assert names == {"metadata.json", "Vagrantfile", "disk.qcow2", "seed.qcow2"}
    vagrant.run("box", "add", "--name", BOX, str(box))
    box.unlink()

    said = vagrant.run("up")
    for check in ("KVM010", "NEST001", "LIBVIRT001", "MODE001"):
        assert re.search(rf"{check} .* ok ", said), said[-6000:]
    # What the comparison inside prints: the modes that it was asked for, and its warning.
    assert "cpu-integer" in said
    live = ET.fromstring(connection.lookupByName(f"{vagrant.name}-default").XMLDesc())
    assert live.get("type") == "qemu"
    features = {each.get("name"): each.get("policy") for each in live.iterfind("cpu/feature")}
    assert features["npt"] == "require"
    assert live.findtext("cpu/model") == "qemu64"

    vagrant.run("destroy", "--force")
    assert vagrant.left(connection) == []
