"""Builds a Debian guest from the distribution's own packages, without root and loop devices.

The result is a disk with a boot loader, and beside it a kernel and an initramfs of our own, which
QEMU can start directly: both lead to the same system.
"""

from __future__ import annotations

import pathlib
import re
import shlex
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vmctl import errors, process, sizes
from vmctl.deadline import Deadline
from vmctl.images import (
    bootstrap,
    catalog,
    debian_cache,
    distribution,
    drafts,
    grub,
    initramfs,
    kernel,
    modules,
    namespace,
    packages,
    partitions,
    recipes,
)
from vmctl.images.job import Job, Product
from vmctl.machine.model import DiskFormat

SUITE = "bookworm"
PACKAGES = (
    *("apt", "systemd-sysv", "udev", "dbus", "systemd-resolved", "linux-image-amd64"),
    *("initramfs-tools", "busybox-static", "zstd", "grub-cloud-amd64", "usr-is-merged"),
    *("cloud-init", "cloud-guest-utils", "openssh-server", "openssh-client", "qemu-guest-agent"),
    *("sudo", "python3", "ca-certificates", "iproute2", "netbase", "gpgv", "e2fsprogs"),
    *("debian-archive-keyring", "less", "nano"),
)
DISK_SIZE = 4 << 30
ROOT = uuid.UUID("5ebd12a0-3d14-4c9d-9b52-6f1d7c1a0e12")
"""UUID of the root file system: the same in all images, as each machine has only one of them."""

_DISK = uuid.UUID("1b0a4a5e-5f0c-4b44-8d5e-0d2f0f1f7a12")
_BIOS_SIZE = 1 << 20
_EFI_SIZE = 16 << 20
_NEEDED = 3 << 30
"""Free space (bytes) that a build takes for a short time: packages, system, disk, compressed."""

_PROGRAMS = (
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("mformat", "mtools"),
    ("mcopy", "mtools"),
    ("unshare", "util-linux"),
    ("qemu-img", "qemu-utils"),
)
_EARLY_MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_scsi", "ahci", "ata_piix", "ata_generic", "sd_mod"),
    *("sr_mod", "ext4", "crc32c_generic", "crc32c_intel"),
)
"""What it takes to reach the root file system, and the CD-ROM with the seed."""


@dataclass(frozen=True, slots=True)
class System:
    """A system to be made: what it is called, its packages, and what vmctl itself puts in.

    `layers` are the recipes whose own files are put in, one over the other; the last one's command
    line goes into the boot loader. `origin` is the digest of all that is vmctl's own.
    """

    name: str
    packages: tuple[str, ...]
    layers: tuple[str, ...]
    origin: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Which packages a system is made of today, and the digest of all that goes into it."""

    system: System
    apt: packages.Apt
    choice: packages.Choice
    wanted: Sequence[packages.Package]
    inputs: str


def make(job: Job, directory: pathlib.Path) -> Product | None:
    """Build the image. Raises HostError, RefusedError, ProgramError, WaitTimeoutError."""
    made_by = plan(job, System(job.name, PACKAGES, (job.name,), recipes.fingerprint(job.name)))
    return None if job.known == made_by.inputs else carry_out(job, made_by, directory)


def plan(job: Job, system: System) -> Plan:
    """Look up what a system is to be made of. Raises HostError, WaitTimeoutError."""
    distribution.require_suite(SUITE)
    bootstrap.require_programs(_PROGRAMS)
    choice = bootstrap.for_system(system.packages)
    apt = packages.Apt(job.progress)
    wanted = apt.resolve(choice, job.deadline)
    return Plan(system, apt, choice, wanted, _inputs(job, system, wanted))


def carry_out(job: Job, plan: Plan, directory: pathlib.Path) -> Product:
    """Make a system, or take it from the cache. Raises as `make` does."""
    system = plan.system
    _clear_leftovers(job, directory)
    cached = debian_cache.take(system.name, plan.inputs, directory)
    if cached is not None:
        return cached
    _require_space(directory)
    namespace.require(job.deadline)
    scratch = _made(directory / "fetched")
    wanted = plan.apt.fetch(plan.wanted, plan.choice, scratch, job.deadline)
    tree = directory / "tree"
    try:
        product = _assemble(job, system, wanted, tree)
    finally:
        # Not all of it belongs to the user, who then could not remove it otherwise.
        namespace.remove_tree(tree, Deadline.after(60))
    debian_cache.keep(system.name, product)
    return product


def _clear_leftovers(job: Job, directory: pathlib.Path) -> None:
    """Remove what killed builds left and the user alone may not remove: files of other owners."""
    for leftover in drafts.leftovers(job.layout, re.escape(job.name)):
        if leftover not in directory.parents:
            namespace.remove_tree(leftover, job.deadline)


def _inputs(job: Job, system: System, wanted: Sequence[packages.Package]) -> str:
    versions = sorted((each.name, each.version, each.sha256) for each in wanted)
    return job.inputs([system.origin, versions])


def _made(directory: pathlib.Path) -> pathlib.Path:
    directory.mkdir()
    return directory


def _require_space(directory: pathlib.Path) -> None:
    free = shutil.disk_usage(directory).free
    if free < _NEEDED:
        raise errors.HostError(
            f"Building this image takes {sizes.text(_NEEDED)} for a short time, and where the "
            f"store is there are {free >> 20} MiB free.",
            hint="Free some space, or choose another place: export VMCTL_HOME=DIRECTORY",
        )


def _assemble(
    job: Job, system: System, wanted: Sequence[packages.Package], tree: pathlib.Path
) -> Product:
    directory = tree.parent
    job.progress("Installing packages", 0, 0)
    hooks = _hooks(system.layers, directory)
    bootstrap.install(wanted, tree, SUITE, hooks, job.deadline)
    release = _release(tree)
    job.progress("Making the disk", 0, 0)
    bzimage = (tree / f"boot/vmlinuz-{release}").read_bytes()
    contents: Mapping[str, bytes] = {
        catalog.BZIMAGE: bzimage,
        catalog.KERNEL: kernel.uncompressed(bzimage, job.deadline) or bzimage,
        catalog.INITRD: _initramfs(system.layers, tree, release, job.deadline),
    }
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    disk = _disk(tree, release, recipes.read(system.layers[-1]).cmdline, job.deadline)
    job.progress("Compressing the disk", 0, 0)
    name = catalog.disk_name(DiskFormat.QCOW2)
    compress(disk, directory / name, job.deadline)
    disk.unlink()
    return Product(
        files={each: directory / each for each in (*contents, name)},
        inputs=_inputs(job, system, wanted),
        facts={
            "disk_format": DiskFormat.QCOW2.value,
            "size": DISK_SIZE,
            "kernel_release": release,
            "packages": {each.name: each.version for each in wanted},
        },
    )


def _hooks(layers: Sequence[str], directory: pathlib.Path) -> bootstrap.Hooks:
    """Lay the project's own parts of the image out and return the commands that put them in."""
    own = _made(directory / "own")
    for layer in layers:
        for path, content in recipes.files(layer):
            place = own / layer / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            place.chmod(0o755 if content.startswith(b"#!") else 0o644)
    for place in own.rglob("*/"):
        place.chmod(0o755)
    last = " ".join(shlex.quote(str(word)) for word in (ROOT, *grub.BIOS_MODULES))
    return bootstrap.Hooks(
        # What packages look at while they are being installed.
        before=" && ".join(
            f'cp -r --no-preserve=ownership -T {_quoted(own / layer / "early")} "$1"'
            for layer in layers
            if (own / layer / "early").is_dir()
        ),
        after=" && ".join(
            f'{_quoted(own / layer / "finish")} "$1" {_quoted(own / layer / "root")} {last}'
            for layer in layers
        ),
    )


def _quoted(path: pathlib.Path) -> str:
    return shlex.quote(str(path))


def _release(tree: pathlib.Path) -> str:
    found = sorted(path.name for path in (tree / "boot").glob("vmlinuz-*"))
    if len(found) != 1:
        raise errors.HostError(
            f"The kernel package holds {len(found)} kernels where one was expected."
        )
    return found[0].removeprefix("vmlinuz-")


def _initramfs(
    layers: Sequence[str], tree: pathlib.Path, release: str, deadline: Deadline
) -> bytes:
    """Return what QEMU starts the kernel with: busybox, a script, and the drivers of disks."""
    top = f"lib/modules/{release}"
    chosen = modules.chosen(tree / top, _EARLY_MODULES, deadline)
    busybox = tree / "bin/busybox"
    applets = process.run([busybox, "--list-full"], deadline).text.split()
    entries = {path: initramfs.link("/bin/busybox") for path in applets}
    entries["bin/busybox"] = initramfs.regular(busybox.read_bytes(), 0o755)
    for module in chosen.values():
        entries[f"{top}/{module.path}"] = initramfs.regular(module.content)
    for path, content in modules.tables(chosen).items():
        entries[f"{top}/{path}"] = initramfs.regular(content)
    for path in ("dev", "proc", "sys", "root"):
        entries[path] = initramfs.directory()
    entries["dev/console"] = initramfs.character_device(5, 1)
    own = [file for layer in layers for file in recipes.files(layer)]
    for path, content in own:
        if path.startswith("initrd/"):
            entries[path.removeprefix("initrd/")] = initramfs.regular(content, 0o755)
    return initramfs.archive(entries)


def _partitions() -> Sequence[partitions.Partition]:
    return partitions.arrange(
        [
            partitions.Wish(14, partitions.BIOS_BOOT, "bios", _BIOS_SIZE),
            partitions.Wish(15, partitions.EFI_SYSTEM, "efi", _EFI_SIZE),
            partitions.Wish(1, partitions.LINUX_ROOT, "root", 0),
        ],
        DISK_SIZE,
        _DISK,
    )


def root_offset() -> int:
    """Return where on the disk (bytes) the root file system begins."""
    return _partitions()[-1].offset


def _disk(tree: pathlib.Path, release: str, cmdline: str, deadline: Deadline) -> pathlib.Path:
    """Make the disk, partitions and boot loaders and all, as a sparse raw file beside `tree`."""
    bios, efi, root = _partitions()
    loader = tree / "usr/lib/grub/i386-pc/boot.img"
    boot_code = grub.boot_code(loader.read_bytes(), bios.start)
    core = grub.core((tree / "boot/grub/i386-pc/core.img").read_bytes(), bios.start)
    if len(core) > bios.size:
        raise errors.HostError(f"GRUB's {len(core)} bytes do not fit into {bios.size}.")
    firmware = tree.with_name("efi.img")
    grub.efi_system(firmware, efi.size, tree, str(ROOT), deadline)
    options = " ".join(word for word in cmdline.split() if not word.startswith("root="))
    (tree / "boot/grub/grub.cfg").write_text(grub.menu(release, str(ROOT), options))
    disk = tree.with_name("disk.raw")
    pieces = partitions.tables((bios, efi, root), DISK_SIZE, _DISK, boot_code)
    with disk.open("xb") as stream:
        stream.truncate(DISK_SIZE)
        for offset, content in {**pieces, bios.offset: core}.items():
            stream.seek(offset)
            stream.write(content)
        stream.seek(efi.offset)
        with firmware.open("rb") as source:
            shutil.copyfileobj(source, stream)
    _file_system(tree, disk, root, deadline)
    return disk


def _file_system(
    tree: pathlib.Path, disk: pathlib.Path, place: partitions.Partition, deadline: Deadline
) -> None:
    options = (
        f"offset={place.offset},hash_seed={ROOT},lazy_itable_init=0,lazy_journal_init=0,"
        "assume_storage_prezeroed=1,root_owner=0:0"
    )
    namespace.run(
        [
            *("mke2fs", "-q", "-F", "-t", "ext4", "-U", str(ROOT), "-L", "root", "-m", "1"),
            *("-E", options, "-d", tree, disk, f"{place.size >> 10}k"),
        ],
        deadline,
    )


def compress(raw: pathlib.Path, target: pathlib.Path, deadline: Deadline) -> None:
    """Write the disk as compressed qcow2: a quarter of the size, and no slower to start from."""
    process.run(
        [
            *("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-m", "4", "-W"),
            *("-o", "compression_type=zstd", raw, target),
        ],
        deadline,
        interruptible=True,
    )
