"""Checks of what surrounds KVM: emulator, libvirt, firmware, network."""

from __future__ import annotations

from vmctl.doctor import codes
from vmctl.doctor.model import Finding, Level, LibvirtFacts, Patient
from vmctl.host import nesting, remedy, verdict
from vmctl.host.facts import HostFacts
from vmctl.host.remedy import Family, Part
from vmctl.host.verdict import Code

MEMORY = 1 << 30
"""Bytes of RAM below which the host and one ordinary guest get in each other's way."""
OLDEST_LIBVIRT = (8, 0)
"""The first libvirt that bounds TCG's translation cache (<tb-cache>)."""


def surroundings(facts: HostFacts) -> list[Finding]:
    """Return what this host is."""
    amount = f"{facts.memory_total / (1 << 30):.1f} GiB"
    memory = codes.ok("HOST003", amount)
    if facts.memory_total < MEMORY:
        memory = codes.finding(
            "HOST003",
            Level.WARNING,
            amount,
            cause=f"The host has {amount} of memory; guests beyond that are killed.",
            fix="Give the host more memory, or keep guests small: memory: 256MiB",
        )
    return [codes.info("HOST002", nesting.platform(facts).short), memory]


def emulator(patient: Patient) -> list[Finding]:
    """Return what there is to say about QEMU."""
    facts = patient.facts
    if facts.emulator:
        found = codes.ok("EMU001", facts.emulator)
    else:
        found = codes.finding(
            "EMU001",
            Level.FAILURE,
            "qemu-system-x86_64 is missing",
            cause="There is no emulator for x86-64, so no machine can run.",
            fix=Family.of(facts.distribution).install(Part.EMULATOR),
        )
    version = patient.libvirt.qemu_version if patient.libvirt else ""
    return [found, codes.ok("EMU002", version) if version else codes.info("EMU002", "not known")]


def firmware(patient: Patient) -> list[Finding]:
    """Return which of `firmware:` and `tpm:` a spec can ask for."""
    facts = patient.facts
    install = Family.of(facts.distribution).install
    found = []
    for code, kind in (("FW001", "uefi"), ("FW002", "uefi-secure")):
        if kind in facts.firmware:
            found.append(_secure_boot(patient) if code == "FW002" else codes.ok(code, "OVMF"))
        else:
            found.append(
                codes.finding(
                    code,
                    Level.WARNING,
                    "no firmware",
                    cause="No descriptor in /usr/share/qemu/firmware offers it, so "
                    f"'firmware: {kind}' cannot be used.",
                    fix=install(Part.UEFI),
                )
            )
    return [*found, _tpm(facts)]


def _secure_boot(patient: Patient) -> Finding:
    cpuid = patient.facts.nested_cpuid
    usable = verdict.kvm_verdict(patient.facts, system=patient.system).usable
    if usable and cpuid is not None and not cpuid.smm:
        return codes.finding(
            "FW002",
            Level.WARNING,
            "not with KVM",
            cause="Secure Boot needs system management mode, which this KVM does not emulate.",
            fix="Use firmware: uefi, or mode: full.",
        )
    return codes.ok("FW002", "OVMF with enrolled keys")


def _tpm(facts: HostFacts) -> Finding:
    if facts.tpm:
        return codes.ok("TPM001", "swtpm and swtpm_setup")
    missing = [name for name in ("swtpm", "swtpm_setup") if name not in facts.programs]
    return codes.finding(
        "TPM001",
        Level.WARNING,
        f"missing: {', '.join(missing)}",
        cause="An emulated TPM takes both swtpm and swtpm_setup; 'tpm: true' cannot be used.",
        fix=Family.of(facts.distribution).install(Part.TPM),
    )


def libvirt(patient: Patient) -> list[Finding]:
    """Return what there is to say about the connection to libvirt."""
    asked = patient.libvirt
    if asked is None:
        return [codes.info("LIBVIRT001", "not asked")]
    if not asked.reachable:
        return [_unreachable(patient.facts, asked)]
    return [codes.ok("LIBVIRT001", asked.uri), _version(patient.facts, asked), _offer(patient)]


def _unreachable(facts: HostFacts, asked: LibvirtFacts) -> Finding:
    family = Family.of(facts.distribution)
    fix = asked.hint
    if not fix and asked.uri.endswith("/session"):
        fix = family.install(Part.LIBVIRT)
    return codes.finding(
        "LIBVIRT001",
        Level.FAILURE,
        f"{asked.uri or 'libvirt'} does not answer",
        cause=asked.error or "The connection failed.",
        fix=fix or f"{family.install(Part.LIBVIRT)}; {family.start_libvirt()}",
    )


def _version(facts: HostFacts, asked: LibvirtFacts) -> Finding:
    numbers = tuple(int(part) for part in asked.libvirt_version.split(".") if part.isdigit())
    if numbers and numbers < OLDEST_LIBVIRT:
        return codes.finding(
            "LIBVIRT002",
            Level.WARNING,
            asked.libvirt_version,
            cause=f"Libvirt {asked.libvirt_version} is older than 8.0 and cannot bound the memory "
            "of emulated guests.",
            fix=f"Upgrade: {Family.of(facts.distribution).install(Part.LIBVIRT)}",
        )
    return codes.ok("LIBVIRT002", asked.libvirt_version or "not known")


def _offer(patient: Patient) -> Finding:
    """Libvirt's own opinion of KVM against that of the probe."""
    assert patient.libvirt is not None
    usable = verdict.kvm_verdict(patient.facts, system=patient.system).usable
    offered = patient.libvirt.kvm_in_capabilities
    if usable and not offered:
        cause, fix = not_offered(patient.facts)
        return codes.finding("LIBVIRT003", Level.FAILURE, "not offered", cause=cause, fix=fix)
    if offered and not usable:
        return codes.info("LIBVIRT003", "offered, yet it runs no guest: see KVM001")
    return codes.ok("LIBVIRT003", "offered" if offered else "not offered, as there is none")


def not_offered(facts: HostFacts) -> tuple[str, str]:
    """Return cause and fix for a KVM that works and that libvirt does not know of."""
    daemon = Family.of(facts.distribution) in (Family.FEDORA, Family.RHEL)
    service = "virtqemud" if daemon else "libvirtd"
    return (
        "KVM works, but libvirt does not list it: what libvirt knows of QEMU is outdated.",
        f"sudo rm -rf /var/cache/libvirt/qemu/capabilities && sudo systemctl restart {service}",
    )


def network(patient: Patient) -> list[Finding]:
    """Return which kinds of network a spec can ask for."""
    facts = patient.facts
    with_kvm = verdict.kvm_verdict(facts, system=patient.system).code in (
        Code.USABLE,
        Code.UNPROBED,
    )
    found = [
        _vhost(facts, matters=with_kvm),
        _tun(facts, matters=patient.system),
        _program(patient, "NET003", ("dnsmasq",), Part.DNSMASQ),
        _program(patient, "NET004", ("iptables", "nft"), Part.PACKET_FILTER),
    ]
    if facts.vhost_vsock:
        return [*found, codes.ok("NET005", "/dev/vhost-vsock")]
    return [*found, codes.info("NET005", "/dev/vhost-vsock cannot be opened; guests get no vsock")]


def _device_fix(facts: HostFacts, module: str) -> str:
    if facts.container:
        device = module.replace("_", "-") if module != "tun" else "net/tun"
        return f"On the container's host: sudo modprobe {module}; and hand in /dev/{device}"
    return Family.of(facts.distribution).load_module(module)


def _vhost(facts: HostFacts, *, matters: bool) -> Finding:
    if facts.vhost_net:
        return codes.ok("NET001", "/dev/vhost-net")
    if not matters or facts.user.uid != 0:
        return codes.info("NET001", "/dev/vhost-net cannot be opened; used only with KVM, by root")
    return codes.finding(
        "NET001",
        Level.WARNING,
        "/dev/vhost-net cannot be opened",
        cause="Without vhost-net every packet of a virtio card goes through QEMU: slower.",
        fix=_device_fix(facts, "vhost_net"),
    )


def _tun(facts: HostFacts, *, matters: bool) -> Finding:
    if facts.tun:
        return codes.ok("NET002", "/dev/net/tun")
    if not matters:
        return codes.info("NET002", "/dev/net/tun cannot be opened; user networking needs none")
    return codes.finding(
        "NET002",
        Level.WARNING,
        "/dev/net/tun cannot be opened",
        cause="Networks of kind nat, isolated and bridge need it; kind user does not.",
        fix=_device_fix(facts, "tun"),
    )


def _program(patient: Patient, code: str, names: tuple[str, ...], part: Part) -> Finding:
    present = [name for name in names if name in patient.facts.programs]
    if present:
        return codes.ok(code, ", ".join(present))
    missing = f"missing: {' or '.join(names)}"
    if not patient.system:
        return codes.info(code, f"{missing}; user networking needs none")
    return codes.finding(
        code,
        Level.WARNING,
        missing,
        cause="Networks of kind nat need it; kind user does not.",
        fix=remedy.Family.of(patient.facts.distribution).install(part),
    )


def shares(patient: Patient) -> Finding:
    """Return by which means a spec's `mounts` reach a guest."""
    facts = patient.facts
    daemon = facts.programs.get("virtiofsd", "")
    if not patient.system:
        return codes.info("SHARE001", "9p; virtiofs takes qemu:///system")
    if facts.user.uid != 0:
        return codes.info("SHARE001", "9p; virtiofs takes root")
    if daemon:
        return codes.ok("SHARE001", f"9p, and virtiofs for writable ones ({daemon})")
    return codes.finding(
        "SHARE001",
        Level.WARNING,
        "9p only: virtiofsd is missing",
        cause="Mounts with 'writable: true' go through virtiofs, which keeps owners; without "
        "virtiofsd they go through 9p, and QEMU's own account needs the right to write.",
        fix=Family.of(facts.distribution).install(Part.VIRTIOFSD),
    )
