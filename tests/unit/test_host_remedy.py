"""Each family of distributions gets its own commands."""

from __future__ import annotations

import pytest

from vmctl.host.facts import Distribution
from vmctl.host.remedy import Family, Part


@pytest.mark.parametrize(
    ("distribution", "family"),
    [
        (Distribution(id="debian"), Family.DEBIAN),
        (Distribution(id="ubuntu", id_like=("debian",)), Family.DEBIAN),
        (Distribution(id="zorin", id_like=("ubuntu", "debian")), Family.DEBIAN),
        (Distribution(id="fedora"), Family.FEDORA),
        (Distribution(id="rocky", id_like=("rhel", "centos", "fedora")), Family.RHEL),
        (Distribution(id="arch"), Family.ARCH),
        (Distribution(id="opensuse-tumbleweed", id_like=("opensuse", "suse")), Family.SUSE),
        (Distribution(id="alpine"), Family.ALPINE),
        (Distribution(id="nixos"), Family.NIXOS),
        (Distribution(id="gentoo"), Family.OTHER),
        (Distribution(), Family.OTHER),
    ],
)
def test_family(distribution: Distribution, family: Family) -> None:
    assert Family.of(distribution) is family


@pytest.mark.parametrize(
    ("family", "command"),
    [
        (Family.DEBIAN, "sudo apt install qemu-system-x86 libvirt-daemon-system"),
        (Family.FEDORA, "sudo dnf install @virtualization"),
        (Family.RHEL, "sudo dnf install qemu-kvm libvirt virt-install"),
        (Family.ARCH, "sudo pacman -S qemu-base libvirt dnsmasq"),
        (Family.SUSE, "sudo zypper install -t pattern kvm_server"),
        (Family.ALPINE, "sudo apk add qemu-system-x86_64 libvirt-daemon libvirt-qemu"),
    ],
)
def test_install(family: Family, command: str) -> None:
    assert family.install(Part.HYPERVISOR) == command


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("part", Part)
def test_every_family_has_an_answer_for_every_part(family: Family, part: Part) -> None:
    assert family.install(part)


def test_nixos_is_configured_not_commanded() -> None:
    assert "extraGroups" in Family.NIXOS.join_group("alice", "kvm")
    assert "boot.extraModprobeConfig" in Family.NIXOS.set_module_option("kvm_intel", "nested=1")
