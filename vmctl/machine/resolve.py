"""From what the user wrote to what will run: fills in every default. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping

from vmctl import errors, sizes
from vmctl.host.facts import HostFacts
from vmctl.host.verdict import Verdict
from vmctl.machine import existing, first_boot, limiting, modes, mounting, readiness
from vmctl.machine.limits import Limits
from vmctl.machine.model import (
    Accel,
    Chipset,
    Devices,
    Disk,
    DiskFormat,
    Display,
    Firmware,
    Forward,
    Image,
    Machine,
    Mode,
    Mount,
    Nic,
    NicKind,
    Ready,
)
from vmctl.machine.xml import disk as disk_xml
from vmctl.machine.xml import network as network_xml
from vmctl.spec import beside, nodes
from vmctl.spec.load import Document
from vmctl.spec.model import ImageSpec, MachineSpec, NetworkSpec
from vmctl.spec.problems import Problem, SpecError
from vmctl.store.layout import Layout
from vmctl.store.storage import Storage

DEFAULT_EMULATOR = "/usr/bin/qemu-system-x86_64"
_MAX_QUEUES = 8
_BLANK_DISK = 10 << 30
"""Size of the system disk of a machine that has a CD-ROM but neither image nor `disk`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """All that a machine depends on besides its spec.

    `session` says that QEMU runs as the user itself (qemu:///session). `store_id` makes UUIDs and
    MACs differ between stores. `qemu_owner` is QEMU's +uid:+gid where vmctl owns the files.
    `images` finds an image by what the spec says of it, `read` returns the content of a file that
    the spec names.
    """

    facts: HostFacts
    kvm: Verdict
    nested: Verdict
    layout: Layout
    storage: Storage
    store_id: str
    images: Callable[[ImageSpec], Image]
    read: Callable[[str], bytes] = beside.read
    session: bool = False
    qemu_owner: str = ""


def resolve(document: Document, around: Surroundings) -> tuple[Machine, ...]:
    """Return the machines of a spec, in its order.

    Raises SpecError with every problem at once, HostError for the first thing that the host lacks.
    """
    problems: list[Problem] = []
    refusals: list[errors.HostError] = []
    machines: list[Machine] = []
    for spec in document.machines:
        resolution = _Resolution(document, spec, around)
        try:
            machines.append(resolution.machine())
        except SpecError as problem:
            problems.extend(problem.problems)
        except errors.HostError as refusal:
            refusals.append(refusal)
    if problems:
        raise SpecError(problems)
    if refusals:
        raise refusals[0]
    return tuple(machines)


class _Resolution:
    """One machine on its way from spec to model."""

    def __init__(self, document: Document, spec: MachineSpec, around: Surroundings) -> None:
        self.document = document
        self.spec = spec
        self.around = around
        self.files = around.layout.machine(spec.name)
        self.firmware = Firmware(spec.firmware.value)

    def machine(self) -> Machine:
        """Return the machine; raises SpecError or HostError."""
        spec, around = self.spec, self.around
        image = self._started(self._image())
        choice = self._choice(image)
        board = self._board(choice.mode, image)
        memory_max = spec.memory_max or spec.memory
        begun = first_boot.resolve(spec, image, around.read, self._problem_at)
        self._refuse_contradictions(choice.mode, board, image, memory_max)
        self._refuse_full_buses(choice.mode, board, begun)
        self._require_host(choice.mode)
        disks = self._disks(choice.mode, image)
        return Machine(
            name=spec.name,
            project=self.document.project,
            uuid=str(uuid.UUID(hex=self._derived("uuid")[:32], version=4)),
            mode=choice.mode,
            chipset=board.chipset,
            cpus=spec.cpus,
            cpus_max=spec.cpus_max or spec.cpus,
            memory=spec.memory,
            memory_max=memory_max,
            ready=self._ready(choice.mode, image, begun),
            console_log=os.fspath(self.files.console_log),
            description=spec.description,
            nested=spec.nested,
            firmware=self.firmware,
            tpm=spec.tpm,
            nvram="" if self.firmware is Firmware.BIOS else os.fspath(self.files.nvram),
            image=image,
            disks=disks,
            cdroms=spec.cdroms,
            boot_order=self._boot_order(image, disks),
            nics=self._nics(choice.mode, board),
            forwards=self._forwards(),
            mounts=self._mounts(choice.mode),
            hostname=begun.hostname,
            user=begun.user,
            seed=os.fspath(self.files.seed) if begun.seeded else "",
            ssh_keys=begun.payload.ssh_keys_digest,
            cloud_init=begun.payload.cloud_init_digest,
            user_data=begun.payload.user_data_digest,
            provision=begun.payload.steps_digest,
            payload=begun.payload,
            display=Display(spec.display.value),
            autostart=spec.autostart,
            needs=spec.needs,
            limits=self._limits(disks),
            vsock=choice.mode is Mode.PARAVIRT and around.facts.vhost_vsock and not around.session,
            host_cpu=self._host_cpu(choice.mode),
            emulator=around.facts.emulator or DEFAULT_EMULATOR,
            qemu_owner=self._qemu_owner(disks),
            why=choice.why,
            fallback=choice.loud,
            remedy=choice.hint,
            snapshot_before_up=spec.snapshots is not None and spec.snapshots.before_up,
            snapshots_kept=spec.snapshots.keep if spec.snapshots else 0,
        )

    def _qemu_owner(self, disks: tuple[Disk, ...]) -> str:
        """Return QEMU's account, or nothing where libvirt must do the labelling.

        The TPM emulator's socket has an owner that only libvirt's own labelling changes; disks that
        were there before get and lose theirs as those of other domains do.
        """
        libvirts = self.spec.tpm or any(disk.external for disk in disks)
        return "" if libvirts else self.around.qemu_owner

    def problem(self, key: str, message: str, suggestion: str = "") -> SpecError:
        """Return an error that points at a key of this machine."""
        return self._problem_at((key,), message, suggestion)

    def _problem_at(self, location: nodes.Path, message: str, suggestion: str = "") -> SpecError:
        return SpecError([self.document.problem(self.spec.name, location, message, suggestion)])

    def _derived(self, what: str) -> str:
        """Return hex digits that stay the same for this name in this store."""
        text = f"{self.around.store_id}/{self.spec.name}/{what}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _image(self) -> Image | None:
        if self.spec.image is None:
            return None
        try:
            image = self.around.images(self.spec.image)
        except errors.NotFoundError as problem:
            raise self.problem("image", problem.message, problem.hint) from None
        return image

    def _started(self, image: Image | None) -> Image | None:
        """Return the image with what starts it: its kernel, or its disk alone."""
        if image is None:
            return None
        boot = (self.spec.boot.value if self.spec.boot else "") or image.boot
        boot = boot or ("disk" if image.disk else "kernel")
        if boot == "disk" and image.kernel:
            if not image.disk:
                raise self.problem("boot", f"image '{image.name}' has no disk to boot from")
            if image.container:
                raise self.problem(
                    "boot",
                    f"image '{image.name}' was made of a container image: its disk has no boot "
                    "loader",
                    "leave it out: QEMU starts the kernel that the import put beside the disk",
                )
            return dataclasses.replace(image, kernel="", efi_kernel="", initrd="", cmdline="")
        if boot == "kernel" and not image.kernel:
            raise self.problem(
                "boot", f"image '{image.name}' has no kernel apart from its disk", "leave it out"
            )
        if self.firmware is not Firmware.BIOS and image.efi_kernel:
            return dataclasses.replace(image, kernel=image.efi_kernel)
        return image

    def _choice(self, image: Image | None) -> modes.Choice:
        spec = self.spec
        wish = modes.Wish(
            mode=spec.mode.value,
            accel=Accel(spec.accel.value) if spec.accel else None,
            devices=Devices(spec.devices.value) if spec.devices else None,
        )
        return modes.choose(wish, self.around.kvm, image.drivers if image else None)

    def _board(self, mode: Mode, image: Image | None) -> modes.Board:
        try:
            wanted = Chipset(self.spec.chipset.value) if self.spec.chipset else None
            return modes.board(mode, image.drivers if image else None, wanted)
        except modes.MissingDriverError as problem:
            raise self.problem("image", problem.message, problem.hint) from None

    def _refuse_contradictions(
        self, mode: Mode, board: modes.Board, image: Image | None, memory_max: int
    ) -> None:
        spec = self.spec
        if image is not None and spec.memory < image.memory:
            raise self.problem(
                "memory",
                f"image '{image.name}' needs at least {sizes.text(image.memory)}; "
                f"got {sizes.text(spec.memory)}",
            )
        if mode.devices is Devices.EMULATED and memory_max > spec.memory:
            raise self.problem(
                "memory_max",
                f"memory_max needs the balloon, a virtio device, which mode '{mode}' does not have",
                "set memory itself, or use mode: paravirt",
            )
        if board.chipset is Chipset.PC and self.firmware is Firmware.UEFI_SECURE:
            raise self.problem(
                "firmware",
                "Secure Boot needs the q35 mainboard, and this image's kernel only drives pc's",
            )

    def _refuse_full_buses(
        self, mode: Mode, board: modes.Board, begun: first_boot.FirstBoot
    ) -> None:
        count = len(self.spec.disks) + len(self.spec.cdroms) + 1 + begun.seeded
        ide = board.chipset is Chipset.PC and mode.devices is Devices.EMULATED
        if ide and count > disk_xml.IDE_UNITS:
            raise self.problem("disks", f"an IDE controller has {disk_xml.IDE_UNITS} units")

    def _require_host(self, mode: Mode) -> None:
        spec, around = self.spec, self.around
        if not around.facts.x86_64:
            raise errors.HostError(
                f"vmctl runs x86-64 machines on x86-64 hosts; this one is "
                f"'{around.facts.architecture}'.",
                hint="Use an x86-64 host.",
            )
        if spec.nested and not around.nested.usable and mode.accel is Accel.KVM:
            raise errors.HostError(
                f"Machine '{spec.name}' wants nested virtualization, which this host does not "
                f"offer: {around.nested.cause}",
                hint=around.nested.fix,
            )
        kinds = {network.kind.value for network in spec.networks}
        refused = kinds & {NicKind.NAT, NicKind.ISOLATED}
        if around.session and refused:
            raise errors.HostError(
                f"Machine '{spec.name}' wants a network of kind '{min(refused)}', which an "
                "ordinary user's libvirt (qemu:///session) cannot make.",
                hint="Use kind: user with forwards, or run as root: sudo vmctl up …",
            )
        missing = self._missing_programs()
        if missing:
            raise errors.HostError(*missing[:1], hint=missing[1])

    def _missing_programs(self) -> tuple[str, str] | None:
        facts, spec = self.around.facts, self.spec
        if self.firmware is Firmware.UEFI and "uefi" not in facts.firmware:
            return "UEFI firmware for QEMU is not installed.", "Install it: vmctl doctor says how."
        if self.firmware is Firmware.UEFI_SECURE and "uefi-secure" not in facts.firmware:
            return (
                "UEFI firmware with Secure Boot and enrolled keys is not installed.",
                "Install it: vmctl doctor says how.",
            )
        if spec.tpm and not facts.tpm:
            return (
                "An emulated TPM needs the programs swtpm and swtpm_setup; one is missing.",
                "Install both: vmctl doctor says how.",
            )
        return None

    def _mounts(self, mode: Mode) -> tuple[Mount, ...]:
        spec, around = self.spec, self.around
        found = list(mounting.objections(spec.mounts, mode, os.fspath(around.layout.home)))
        if found:
            raise SpecError([self.document.problem(spec.name, *each) for each in found])
        facts = around.facts
        means = mounting.Means(
            session=around.session,
            root=facts.user.uid == 0,
            virtiofsd="virtiofsd" in facts.programs,
        )
        return mounting.resolve(spec.mounts, means)

    def _disks(self, mode: Mode, image: Image | None) -> tuple[Disk, ...]:
        for objection in existing.objections(self.spec.disks, os.fspath(self.around.layout.home)):
            raise self._problem_at(*objection)
        disks = [*self._root_disk(mode, image)]
        for disk in self.spec.disks:
            if disk.path:
                disks.append(existing.disk(disk))
                continue
            file = os.fspath(self.files.disk(disk.name))
            own = Disk(name=disk.name, file=file, size=disk.size or 0, keep=disk.keep)
            disks.append(self._tuned(mode, own))
        return tuple(disks)

    def _root_disk(self, mode: Mode, image: Image | None) -> Iterator[Disk]:
        spec = self.spec
        file = os.fspath(self.files.disk("root"))
        if image is None:
            leads = bool(spec.disks and spec.disks[0].path)
            if spec.disk is not None or (spec.cdroms and not leads):
                yield self._tuned(mode, Disk(name="root", file=file, size=spec.disk or _BLANK_DISK))
            elif not spec.disks and "network" not in spec.boot_order:
                raise self.problem("image", "there is nothing to start from: no image, no disk")
            return
        if not image.disk:
            if spec.disk is not None:
                raise self.problem(
                    "disk",
                    f"image '{image.name}' is a kernel with its initramfs and has no system disk",
                    "add a disk of its own: disks: [{name: data, size: 1GiB}]",
                )
            return
        if spec.disk is not None and spec.disk < image.size:
            raise self.problem(
                "disk", f"a disk never shrinks, and image '{image.name}' has {image.size} bytes"
            )
        disk = Disk(
            name="root",
            file=file,
            size=spec.disk or image.size,
            base=image.disk,
            base_format=DiskFormat(image.disk_format),
        )
        yield self._tuned(mode, disk)

    def _tuned(self, mode: Mode, disk: Disk) -> Disk:
        storage = self.around.storage
        if mode.devices is Devices.VIRTIO:
            return dataclasses.replace(disk, direct=storage.direct, aio=storage.aio)
        return dataclasses.replace(disk, direct=storage.direct)

    def _boot_order(self, image: Image | None, disks: tuple[Disk, ...]) -> tuple[str, ...]:
        if image is not None and image.kernel:
            if self.spec.boot_order:
                raise self.problem(
                    "boot_order",
                    f"image '{image.name}' starts by its kernel, and no firmware is asked for more",
                    "leave it out; or say 'boot: disk' where the image has a boot loader",
                )
            return ()
        if self.spec.boot_order:
            return self.spec.boot_order
        return (*(("disk",) if disks else ()), *(("cdrom",) if self.spec.cdroms else ()))

    def _nics(self, mode: Mode, board: modes.Board) -> tuple[Nic, ...]:
        return tuple(
            self._nic(index, network, mode, board)
            for index, network in enumerate(self.spec.networks)
        )

    def _nic(self, index: int, network: NetworkSpec, mode: Mode, board: modes.Board) -> Nic:
        kind = NicKind(network.kind.value)
        vhost = mode is Mode.PARAVIRT and kind is not NicKind.USER and self.around.facts.vhost_net
        return Nic(
            kind=kind,
            mac=network.mac or self._mac(index),
            model=board.nic,
            network=network.network or network_xml.NAMES.get(kind, ""),
            bridge=network.bridge,
            address=network.address,
            gateway=network.gateway,
            dns=network.dns,
            vhost=vhost and not self.around.session,
            queues=min(self.spec.cpus, _MAX_QUEUES) if vhost and not self.around.session else 1,
        )

    def _limits(self, disks: tuple[Disk, ...]) -> Limits:
        facts, session = self.around.facts, self.around.session
        means = limiting.Means(facts=facts, session=session, disks=len(disks))
        return limiting.resolve(self.spec, means, self._problem_at)

    def _ready(self, mode: Mode, image: Image | None, begun: first_boot.FirstBoot) -> Ready:
        slow = self.around.facts.emulated
        return readiness.resolve(
            self.spec, mode, image, begun, self._problem_at, emulated_host=slow
        )

    def _forwards(self) -> tuple[Forward, ...]:
        return tuple(
            Forward(
                host=forward.host,
                guest=forward.guest,
                host_address=forward.host_address,
                protocol=forward.protocol.value,
            )
            for forward in self.spec.forwards
        )

    def _mac(self, index: int) -> str:
        """Return the address of a card: by what it is plugged into, so that it stays the same.

        A card keeps it when others of another kind come and go before it.
        """
        networks = self.spec.networks
        places = [(each.kind, each.network, each.bridge) for each in networks[: index + 1]]
        nth = places.count(places[-1]) - 1
        kind, network, bridge = places[-1]
        place = "" if kind.value == NicKind.USER else f"/{kind.value}/{network}{bridge}"
        digits = self._derived(f"mac{nth}{place}")
        return f"52:54:00:{digits[0:2]}:{digits[2:4]}:{digits[4:6]}"

    def _host_cpu(self, mode: Mode) -> str:
        if mode.accel is not Accel.KVM:
            return ""
        vendor = self.around.facts.cpu.vendor
        return {"GenuineIntel": "vmx", "AuthenticAMD": "svm"}.get(vendor, "")


def by_name(machines: tuple[Machine, ...]) -> Mapping[str, Machine]:
    """Return the machines under their names."""
    return {machine.name: machine for machine in machines}
