"""What killed commands and other hands leave is found, told apart from data, and cleared."""

from __future__ import annotations

import fcntl
import pathlib
import shutil

import libvirt

from tests.vm.conftest import Site
from tests.vm.killing import killed
from tests.vm.test_kills import require_gone

SPEC = "accel: tcg\ndevices: virtio\nready: {when: running}\ndisks: [{name: data, size: 16MiB}]\n"


def found(site: Site, name: str) -> tuple[str, bool] | None:
    """Return what `gc` says of a machine: kind, and whether it may hold data."""
    left = {one["name"]: one for one in site.run("gc", "--dry-run", "--json").json}
    return (left[name]["kind"], left[name]["data"]) if name in left else None


def place(site: Site, name: str) -> pathlib.Path:
    return site.home / "machines" / name


def remove_domain(connection: libvirt.virConnect, name: str) -> None:
    domain = connection.lookupByName(name)
    if domain.isActive():
        domain.destroy()
    domain.undefine()


def test_nothing_is_wrong_with_a_machine_that_runs(site: Site) -> None:
    path, name = site.spec(SPEC)
    site.run("up", path)
    assert found(site, name) is None
    site.run("stop", "--force", name)
    assert found(site, name) is None
    site.run("down", "-y", name)
    assert found(site, name) is None


def test_what_a_killed_up_leaves(site: Site, guest_uri: libvirt.virConnect) -> None:
    path, name = site.spec(SPEC)
    kinds = set()
    for when in range(1, 200, 3):
        if not killed(site, when, "after", "up", path):
            break
        there = found(site, name)
        exists = name in [domain.name() for domain in guest_uri.listAllDomains()]
        if there is not None:
            kinds.add(there)
            assert not exists or there[0] == "unfinished file"
            assert name in site.run("gc", "-y", name).err
            assert found(site, name) is None
        if exists:
            site.run("down", "-y", name)
        require_gone(site, guest_uri, name)
    site.run("down", "-y", path)
    assert ("half-made machine", False) in kinds


def test_what_a_killed_down_leaves(site: Site, guest_uri: libvirt.virConnect) -> None:
    path, name = site.spec(SPEC)
    cleared = 0
    for when in range(3, 200, 4):
        site.run("up", path)
        if not killed(site, when, "before", "down", "-y", name):
            break
        if found(site, name) == ("half-removed machine", False):
            site.run("gc", "-y", name)
            cleared += 1
        else:
            site.run("down", "-y", name)
        require_gone(site, guest_uri, name)
    assert cleared >= 2


def test_disks_whose_domain_is_gone_are_cleared_only_when_asked(
    site: Site, guest_uri: libvirt.virConnect
) -> None:
    path, name = site.spec(SPEC)
    site.run("up", path)
    remove_domain(guest_uri, name)
    assert found(site, name) == ("machine without domain", True)
    assert "Left alone" in site.run("gc", name).err
    assert (place(site, name) / "data.qcow2").exists()
    site.run("gc", "--data", name, status=2)
    assert (place(site, name) / "data.qcow2").exists()
    site.run("gc", "--data", "-y", name)
    assert not place(site, name).exists()


def test_disks_that_down_kept(site: Site) -> None:
    path, name = site.spec(SPEC.replace("16MiB", "16MiB, keep: true"))
    site.run("up", path)
    site.run("stop", "--force", name)
    site.run("down", "-y", name)
    assert found(site, name) == ("kept disks", True)
    site.run("gc", "-y", name)
    assert (place(site, name) / "data.qcow2").exists()
    site.run("gc", "--data", "-y", name)
    assert not place(site, name).exists()


def test_a_domain_whose_files_are_gone(site: Site, guest_uri: libvirt.virConnect) -> None:
    path, name = site.spec(SPEC)
    site.run("up", path)
    shutil.rmtree(place(site, name))
    assert found(site, name) == ("domain without files", True)
    site.run("gc", "-y", name)
    domain = guest_uri.lookupByName(name)
    assert domain.isActive()
    domain.destroy()
    assert found(site, name) == ("domain without files", False)
    site.run("gc", "-y", name)
    require_gone(site, guest_uri, name)


def test_domains_of_others_and_of_other_stores_are_not_ours(
    site: Site, guest_uri: libvirt.virConnect
) -> None:
    path, name = site.spec(SPEC)
    site.run("up", path)
    other = site.home / "other-store"
    other.mkdir(mode=0o711)
    assert site.run("gc", "--json", "--dry-run", VMCTL_HOME=str(other)).json == [] or all(
        one["kind"] == "unused network"
        for one in site.run("gc", "--json", "--dry-run", VMCTL_HOME=str(other)).json
    )
    site.run("gc", "-y", "--data", name, VMCTL_HOME=str(other))
    assert guest_uri.lookupByName(name).isActive()
    site.run("down", "-y", name)
    shutil.rmtree(other)


def test_what_another_vmctl_works_on_is_no_leftover(site: Site) -> None:
    path, name = site.spec(SPEC)
    assert killed(site, 6, "after", "up", path)
    assert found(site, name) is not None
    with (site.home / "locks" / f"machine-{name}.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert found(site, name) is None
    site.run("gc", "-y", name)
    assert found(site, name) is None


def test_a_network_that_nobody_uses(site: Site, guest_uri: libvirt.virConnect) -> None:
    path, name = site.spec(f"{SPEC}networks: [{{kind: isolated}}]\n")
    site.run("up", path)
    assert found(site, "vmctl-isolated") is None
    remove_domain(guest_uri, name)
    shutil.rmtree(place(site, name))
    assert found(site, "vmctl-isolated") == ("unused network", False)
    site.run("gc", "-y")
    assert "vmctl-isolated" not in [network.name() for network in guest_uri.listAllNetworks()]
