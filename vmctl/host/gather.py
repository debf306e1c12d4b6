"""Looks at the host and returns facts. Quick, and never raises: what is missing is a fact, too."""

from __future__ import annotations

import contextlib
import os
import pathlib

from vmctl import process
from vmctl.deadline import Deadline
from vmctl.host import accounts, cgroups, firmware, kvm, probe, processor, reading, surroundings
from vmctl.host.facts import HostFacts, ProbeResult

HOST = pathlib.Path("/")

MODULES = (
    "kvm",
    "kvm_intel",
    "kvm_amd",
    "kvm_pvm",
    "vhost_net",
    "vhost_vsock",
    "tun",
    "vboxdrv",
    "vmmon",
    "xen_evtchn",
    "msr",
)
PARAMETERS = (
    "kvm_intel.nested",
    "kvm_intel.ept",
    "kvm_intel.unrestricted_guest",
    "kvm_amd.nested",
    "kvm_amd.npt",
    "kvm.enable_virt_at_load",
)
PROGRAMS = ("swtpm", "swtpm_setup", "dnsmasq", "iptables", "nft", "qemu-img", "virtiofsd")
_EMULATORS = (
    "usr/bin/qemu-system-x86_64",
    "usr/local/bin/qemu-system-x86_64",
    "usr/libexec/qemu-kvm",
    "run/libvirt/nix-emulators/qemu-system-x86_64",
)
_PROGRAM_DIRECTORIES = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")
_HELPER_DIRECTORIES = ("usr/libexec", "usr/lib/qemu", "usr/lib", "usr/lib/virtiofsd")
"""Where distributions keep virtiofsd, which no person calls."""


def gather(
    deadline: Deadline, *, probing: bool = True, fresh: bool = False, root: pathlib.Path = HOST
) -> HostFacts:
    """Return the facts of this host in a few milliseconds, plus the probe unless it is remembered.

    `probing` off leaves the probe out, `fresh` ignores a remembered one. With another `root` the
    files below it are read instead (accounts remain this system's).
    """
    cpu = processor.cpu(root)
    node = kvm.node(root / "dev/kvm")
    answers = kvm.ask(root / "dev/kvm") if node.openable else kvm.Answers()
    result: ProbeResult | None = None
    if probing and answers.create_vm_errno == 0 and answers.api == kvm.API_VERSION:
        result = probe.remembered(node, deadline, fresh=fresh)
    return HostFacts(
        architecture=os.uname().machine,
        cpu=cpu,
        kernel=reading.line(root / "proc/sys/kernel/osrelease"),
        distribution=surroundings.distribution(root),
        container=surroundings.container(root),
        virtual=surroundings.virtual(root, cpu),
        wsl=surroundings.wsl(root),
        memory_total=_memory_total(root),
        modules=tuple(name for name in MODULES if os.path.exists(root / "sys/module" / name)),
        parameters=_parameters(root),
        kernel_log=processor.telling_log(root),
        msr=processor.msr(root, intel=cpu.intel),
        kvm_node=node,
        kvm_api=answers.api,
        create_vm_errno=answers.create_vm_errno,
        nested_cpuid=answers.nested_cpuid,
        probe=result,
        vhost_net=kvm.node(root / "dev/vhost-net").openable,
        vhost_vsock=kvm.node(root / "dev/vhost-vsock").openable,
        tun=kvm.node(root / "dev/net/tun").openable,
        user=accounts.current_user(),
        qemu_user=accounts.qemu_user(root, node),
        emulator=_emulator(root),
        programs=_programs(root),
        firmware=firmware.offered(root),
        umask=_umask(root),
        cgroups=cgroups.look(root),
        memory_locking=cgroups.may_lock_memory(root),
    )


def _memory_total(root: pathlib.Path) -> int:
    for row in reading.text(root / "proc/meminfo").splitlines():
        key, _, value = row.partition(":")
        number = value.split()[:1]
        if key == "MemTotal" and number and number[0].isdigit():
            return int(number[0]) * 1024
    return 0


def _parameters(root: pathlib.Path) -> dict[str, str]:
    found = {}
    for full_name in PARAMETERS:
        module, _, name = full_name.partition(".")
        value = reading.line(root / "sys/module" / module / "parameters" / name)
        if value:
            found[full_name] = value
    return found


def _umask(root: pathlib.Path) -> int:
    """Read it from /proc: os.umask can only be asked by setting it, for all threads at once."""
    for row in reading.text(root / "proc/self/status").splitlines():
        key, _, value = row.partition(":")
        if key == "Umask":
            with contextlib.suppress(ValueError):
                return int(value.strip(), 8)
    return 0o022


def _emulator(root: pathlib.Path) -> str:
    if root == HOST:
        found = process.find("qemu-system-x86_64")
        if found:
            return found
    return next((str(root / path) for path in _EMULATORS if os.access(root / path, os.X_OK)), "")


def _programs(root: pathlib.Path) -> dict[str, str]:
    found = {}
    for name in PROGRAMS:
        if root == HOST:
            path = process.find(name) or ""
        else:
            path = _first(root, _PROGRAM_DIRECTORIES, name)
        path = path or _first(root, _HELPER_DIRECTORIES, name)
        if path:
            found[name] = path
    return found


def _first(root: pathlib.Path, directories: tuple[str, ...], name: str) -> str:
    paths = (root / directory / name for directory in directories)
    return next((str(each) for each in paths if each.is_file() and os.access(each, os.X_OK)), "")
