"""What to type against a lack, in the words of the host's distribution."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from vmctl.host.facts import Distribution, HostFacts


class Family(enum.StrEnum):
    """Distributions that share package names and tools."""

    DEBIAN = "debian"
    FEDORA = "fedora"
    RHEL = "rhel"
    ARCH = "arch"
    SUSE = "suse"
    ALPINE = "alpine"
    NIXOS = "nixos"
    OTHER = "other"

    @classmethod
    def of(cls, distribution: Distribution) -> Family:
        """Return the family of a distribution, by ID first, then by ID_LIKE."""
        for name in (distribution.id, *distribution.id_like):
            if name in _FAMILIES:
                return _FAMILIES[name]
        return cls.OTHER

    def install(self, part: Part) -> str:
        """Return the command that installs `part`."""
        packages = _PACKAGES[part]
        if self is Family.OTHER:
            return f"install with your package manager: {packages[Family.DEBIAN]} (Debian's names)"
        if self is Family.NIXOS:
            return f"add to configuration.nix: {packages[self]}; sudo nixos-rebuild switch"
        return f"{_INSTALLERS[self]} {packages[self]}"

    def join_group(self, user: str, group: str) -> str:
        """Return the command that puts `user` into `group`."""
        if self is Family.ALPINE:
            return f"sudo addgroup {user} {group}"
        if self is Family.NIXOS:
            return (
                f'add to configuration.nix: users.users.{user}.extraGroups = [ "kvm" "libvirtd" ]; '
                "sudo nixos-rebuild switch"
            )
        return f"sudo usermod -aG {group} {user}"

    def load_module(self, module: str) -> str:
        """Return the commands that load a kernel module, now and at every boot."""
        if self is Family.NIXOS:
            return (
                f"sudo modprobe {module}; keep it: add to configuration.nix: "
                f'boot.kernelModules = [ "{module}" ]'
            )
        file = "kvm" if module.startswith("kvm") else module
        return (
            f"sudo modprobe {module}; "
            f"keep it: echo {module} | sudo tee /etc/modules-load.d/{file}.conf"
        )

    def start_libvirt(self) -> str:
        """Return the command that starts libvirt's daemon for qemu:///system."""
        if self is Family.ALPINE:
            return "sudo rc-update add libvirtd && sudo rc-service libvirtd start"
        if self is Family.NIXOS:
            return (
                "add to configuration.nix: virtualisation.libvirtd.enable = true; "
                "sudo nixos-rebuild switch"
            )
        if self in (Family.FEDORA, Family.RHEL):
            return "sudo systemctl enable --now virtqemud.socket virtnetworkd.socket"
        return "sudo systemctl enable --now libvirtd.socket"

    def set_module_option(self, module: str, option: str) -> str:
        """Return the commands that set a module's option and load it anew (no guest running)."""
        reload = f"sudo modprobe -r {module} && sudo modprobe {module}"
        if self is Family.NIXOS:
            return (
                "add to configuration.nix: boot.extraModprobeConfig = "
                f'"options {module} {option}"; sudo nixos-rebuild switch; {reload}'
            )
        return (
            f"echo 'options {module} {option}' | sudo tee /etc/modprobe.d/vmctl-kvm.conf; "
            f"stop all guests; {reload}"
        )


class Part(enum.StrEnum):
    """Something that a distribution has packages for."""

    HYPERVISOR = "QEMU and libvirt"
    EMULATOR = "QEMU"
    LIBVIRT = "libvirt"
    UEFI = "UEFI firmware"
    TPM = "TPM emulator"
    DNSMASQ = "dnsmasq"
    PACKET_FILTER = "packet filter"
    VIRTIOFSD = "virtiofs daemon"


_FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(("debian", "ubuntu", "raspbian", "linuxmint", "pop", "kali"), Family.DEBIAN),
    "fedora": Family.FEDORA,
    **dict.fromkeys(("rhel", "centos", "rocky", "almalinux", "ol"), Family.RHEL),
    **dict.fromkeys(("arch", "manjaro", "endeavouros", "archarm"), Family.ARCH),
    **dict.fromkeys(
        ("opensuse", "suse", "sles", "opensuse-leap", "opensuse-tumbleweed", "sled"), Family.SUSE
    ),
    **dict.fromkeys(("alpine", "postmarketos"), Family.ALPINE),
    "nixos": Family.NIXOS,
}

_INSTALLERS: Mapping[Family, str] = {
    Family.DEBIAN: "sudo apt install",
    Family.FEDORA: "sudo dnf install",
    Family.RHEL: "sudo dnf install",
    Family.ARCH: "sudo pacman -S",
    Family.SUSE: "sudo zypper install",
    Family.ALPINE: "sudo apk add",
}

_ORDER = (
    Family.DEBIAN,
    Family.FEDORA,
    Family.RHEL,
    Family.ARCH,
    Family.SUSE,
    Family.ALPINE,
    Family.NIXOS,
)
_LIBVIRTD = "virtualisation.libvirtd"


def _row(*names: str) -> Mapping[Family, str]:
    return dict(zip(_ORDER, names, strict=True))


_PACKAGES: Mapping[Part, Mapping[Family, str]] = {
    Part.HYPERVISOR: _row(
        "qemu-system-x86 libvirt-daemon-system",
        "@virtualization",
        "qemu-kvm libvirt virt-install",
        "qemu-base libvirt dnsmasq",
        "-t pattern kvm_server",
        "qemu-system-x86_64 libvirt-daemon libvirt-qemu",
        f"{_LIBVIRTD}.enable = true",
    ),
    Part.EMULATOR: _row(
        "qemu-system-x86",
        "qemu-system-x86",
        "qemu-kvm",
        "qemu-base",
        "qemu-x86",
        "qemu-system-x86_64",
        f"{_LIBVIRTD}.enable = true",
    ),
    Part.LIBVIRT: _row(
        "libvirt-daemon-system",
        "libvirt",
        "libvirt",
        "libvirt",
        "libvirt",
        "libvirt-daemon libvirt-qemu",
        f"{_LIBVIRTD}.enable = true",
    ),
    Part.UEFI: _row(
        "ovmf",
        "edk2-ovmf",
        "edk2-ovmf",
        "edk2-ovmf",
        "qemu-ovmf-x86_64",
        "ovmf",
        f"{_LIBVIRTD}.qemu.ovmf.enable = true",
    ),
    Part.TPM: _row(
        "swtpm swtpm-tools",
        "swtpm swtpm-tools",
        "swtpm swtpm-tools",
        "swtpm",
        "swtpm",
        "swtpm",
        f"{_LIBVIRTD}.qemu.swtpm.enable = true",
    ),
    Part.DNSMASQ: _row(
        "dnsmasq-base", "dnsmasq", "dnsmasq", "dnsmasq", "dnsmasq", "dnsmasq",
        f"{_LIBVIRTD}.enable = true",
    ),
    Part.PACKET_FILTER: _row(
        "iptables", "iptables-nft", "iptables-nft", "iptables", "iptables", "iptables",
        f"{_LIBVIRTD}.enable = true",
    ),
    Part.VIRTIOFSD: _row(
        "virtiofsd", "virtiofsd", "virtiofsd", "virtiofsd", "virtiofsd", "virtiofsd",
        f"{_LIBVIRTD}.qemu.vhostUserPackages = [ pkgs.virtiofsd ]",
    ),
}  # fmt: skip


def outer_nesting(facts: HostFacts) -> str:
    """Return what to do on the hypervisor below, so that this host gets VT-x or AMD-V."""
    if facts.wsl:
        return (
            "In Windows, put into %UserProfile%\\.wslconfig: [wsl2] nestedVirtualization=true; "
            "then: wsl --shutdown"
        )
    known = _OUTER.get(facts.virtual)
    if known:
        return known.replace("MODULE", facts.kvm_module)
    return " Or: ".join(
        f"{name}: {_OUTER[key].replace('MODULE', facts.kvm_module)}"
        for key, name in (("kvm", "KVM"), ("vmware", "VMware"), ("hyperv", "Hyper-V"))
    )


_KVM_OUTER = (
    "On the machine below: echo 'options MODULE nested=1' | sudo tee "
    "/etc/modprobe.d/kvm-nested.conf; sudo modprobe -r MODULE && sudo modprobe MODULE "
    "(no guest running), and give this VM <cpu mode='host-passthrough'/> "
    "(Proxmox: qm set ID --cpu host), then start it anew"
)
_OUTER: Mapping[str, str] = {
    "kvm": _KVM_OUTER,
    "qemu": "Give this VM an emulated processor with AMD-V: QEMU's -cpu max, in libvirt "
    "<cpu mode='maximum'/>, in vmctl nested: true",
    "virtualbox": "With this VM powered off, on the machine below: "
    "VBoxManage modifyvm NAME --nested-hw-virt on",
    "vmware": 'With this VM powered off, add to its .vmx file: vhv.enable = "TRUE"',
    "hyperv": "With this VM off, in PowerShell on the machine below: "
    "Set-VMProcessor NAME -ExposeVirtualizationExtensions $true (Azure: choose a size that "
    "offers nesting, such as Dv3 or Ev3 or later)",
    "xen": "Xen's nesting is experimental: choose a host that offers it",
    "google": "Create the instance with: gcloud compute instances create NAME "
    "--enable-nested-virtualization",
    "amazon": "Choose a .metal instance type, or one that offers nested virtualization",
}


def container_device(facts: HostFacts) -> str:
    """Return how to hand /dev/kvm into the container that this host is."""
    docker = "--device /dev/kvm --device /dev/net/tun"
    known = {
        "docker": f"Start the container with: docker run {docker} …",
        "podman": f"Start the container with: podman run {docker} --group-add keep-groups …",
        "lxc": "In the container's configuration: lxc.cgroup2.devices.allow = c 10:232 rwm and "
        "lxc.mount.entry = /dev/kvm dev/kvm none bind,create=file (LXD: "
        "lxc config device add NAME kvm unix-char path=/dev/kvm)",
        "kubernetes": "Ask for the device through a device plugin, such as KubeVirt's "
        "devices.kubevirt.io/kvm",
    }
    return known.get(facts.container, f"Hand the device in; with docker: docker run {docker} …")
