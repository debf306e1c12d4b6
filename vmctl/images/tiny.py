"""Puts the tiny image together: a distribution's own kernel, and an initramfs around busybox."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from dataclasses import dataclass

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.images import catalog, distribution, elf, initramfs, kernel, modules, packages, recipes
from vmctl.images.job import Job, Product

_COMMON_MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_balloon", "virtio_rng"),
    *("ahci", "ata_piix", "sd_mod", "button", "evdev", "qemu_fw_cfg", "ext4", "crc32c_generic"),
)
"""Needed in many boots: kept as they are, because expanding them under TCG takes time."""

_OTHER_MODULES = (
    # Buses and devices.
    *("virtio_mmio", "virtio_scsi", "virtio_mem", "virtio_input", "sr_mod", "e1000", "e1000e"),
    *("vmw_vsock_virtio_transport", "pvpanic_pci", "pvpanic_mmio"),
    # File systems.
    *("isofs", "vfat", "nls_ascii", "nls_cp437"),
    *("9pnet_virtio", "9p", "virtiofs"),
    # Virtual machines inside.
    *("kvm_amd", "kvm_intel"),
)
_PROGRAMS = ("usr/sbin/dropbear", "usr/sbin/qemu-ga", "usr/sbin/mke2fs", "usr/sbin/resize2fs")
_LIBRARY_PLACES = tuple(
    f"{prefix}{place}" for prefix in ("", "usr/") for place in ("lib/x86_64-linux-gnu", "lib64")
)
_LIBRARIES = "lib/x86_64-linux-gnu"
_OWN_COMMANDS = ("poweroff", "reboot", "halt", "shutdown")
_EMPTY_DIRECTORIES = ("dev", "proc", "sys", "run", "tmp", "root", "mnt", "data", "etc/dropbear")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the guest boots from; `kernel` is the uncompressed one where that can be started."""

    kernel: bytes
    bzimage: bytes
    initrd: bytes
    release: str


def make(job: Job, directory: pathlib.Path) -> Product | None:
    """Build the image from the distribution's packages. Raises HostError, RefusedError."""
    apt = packages.Apt(job.progress)
    choice = packages.for_files(distribution.names())
    wanted = apt.resolve(choice, job.deadline)
    if job.known and job.known == _inputs(job, wanted):
        return None
    fetched = directory / "fetched"
    fetched.mkdir()
    wanted = apt.fetch(wanted, choice, fetched, job.deadline)
    job.progress("Unpacking packages", 0, 0)
    root = directory / "root"
    root.mkdir()
    packages.unpack(wanted, root, job.deadline)
    job.progress("Putting the image together", 0, 0)
    parts = assemble(root, job.deadline)
    contents = {catalog.KERNEL: parts.kernel, catalog.INITRD: parts.initrd}
    if parts.kernel is not parts.bzimage:
        contents[catalog.BZIMAGE] = parts.bzimage
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    return Product(
        files={name: directory / name for name in contents},
        inputs=_inputs(job, wanted),
        facts={
            "kernel_release": parts.release,
            "packages": {each.name: each.version for each in wanted},
        },
    )


def _inputs(job: Job, wanted: Iterable[packages.Package]) -> str:
    return job.inputs(sorted((each.name, each.version, each.sha256) for each in wanted))


def assemble(root: pathlib.Path, deadline: Deadline) -> Parts:
    """Make the image's files from the packages unpacked in `root`. Raises HostError."""
    release = _release(root)
    bzimage = _read(root, f"boot/vmlinuz-{release}")
    entries = {
        **_busybox(root, deadline),
        **_programs(root),
        **_modules(root, release, deadline),
        **_own_files(),
        **{name: initramfs.directory() for name in _EMPTY_DIRECTORIES},
        "root": initramfs.directory(0o700),
        "tmp": initramfs.directory(0o1777),
        # The last entry in the order of the archive: it is there when everything is.
        "var/complete": initramfs.regular(b""),
        # The kernel opens it before anything is mounted on /dev.
        "dev/console": initramfs.character_device(5, 1),
    }
    return Parts(
        kernel=kernel.uncompressed(bzimage, deadline) or bzimage,
        bzimage=bzimage,
        initrd=initramfs.archive(entries),
        release=release,
    )


def _release(root: pathlib.Path) -> str:
    found = sorted(path.name for path in (root / "boot").glob("vmlinuz-*"))
    if len(found) != 1:
        raise errors.HostError(
            f"The kernel package holds {len(found)} kernels where one was expected."
        )
    return found[0].removeprefix("vmlinuz-")


def _read(root: pathlib.Path, path: str) -> bytes:
    try:
        return (root / path).read_bytes()
    except OSError as problem:
        raise errors.HostError(
            f"The distribution's packages do not hold '{path}' ({problem.strerror})."
        ) from None


def _first(root: pathlib.Path, paths: Iterable[str]) -> pathlib.Path | None:
    return next((root / path for path in paths if (root / path).is_file()), None)


def _busybox(root: pathlib.Path, deadline: Deadline) -> dict[str, initramfs.Entry]:
    program = _first(root, ("bin/busybox", "usr/bin/busybox"))
    if program is None:
        raise errors.HostError("The package 'busybox-static' does not hold busybox.")
    applets = process.run([program, "--list-full"], deadline).text.split()
    links = {path: initramfs.link("/bin/busybox") for path in applets if path != "bin/busybox"}
    return {**links, "bin/busybox": initramfs.regular(program.read_bytes(), 0o755)}


def _programs(root: pathlib.Path) -> dict[str, initramfs.Entry]:
    """Return the programs with their libraries, found by walking what each file asks for."""
    entries: dict[str, initramfs.Entry] = {}
    waiting: list[str] = []
    for path in _PROGRAMS:
        # Where / and /usr are one, packages move their files; the guest's PATH has both.
        place = _first(root, (path, path.removeprefix("usr/")))
        if place is None:
            raise errors.HostError(f"The distribution's packages do not hold '{path}'.")
        content = place.read_bytes()
        program = elf.Elf(content)
        entries[path] = initramfs.regular(content, 0o755)
        waiting += program.needed
        loader = program.interpreter.lstrip("/")
        waiting.append(loader.rsplit("/", 1)[-1])
        entries[loader] = initramfs.link(f"/{_LIBRARIES}/{loader.rsplit('/', 1)[-1]}")
    while waiting:
        name = waiting.pop()
        target = f"{_LIBRARIES}/{name}"
        if target not in entries:
            place = _first(root, (f"{directory}/{name}" for directory in _LIBRARY_PLACES))
            if place is None:
                raise errors.HostError(f"None of the packages holds the library '{name}'.")
            content = place.read_bytes()
            entries[target] = initramfs.regular(content, 0o755)
            waiting += elf.Elf(content).needed
    return entries


def _modules(root: pathlib.Path, release: str, deadline: Deadline) -> dict[str, initramfs.Entry]:
    top = f"lib/modules/{release}"
    directory = _first_directory(root, (top, f"usr/{top}"))
    common = modules.chosen(directory, _COMMON_MODULES, deadline)
    chosen = {
        name: module if name in common else modules.compressed(module)
        for name, module in modules.chosen(
            directory, [*_COMMON_MODULES, *_OTHER_MODULES], deadline
        ).items()
    }
    entries = {f"{top}/{each.path}": initramfs.regular(each.content) for each in chosen.values()}
    for name, content in modules.tables(chosen).items():
        entries[f"{top}/{name}"] = initramfs.regular(content)
    return entries


def _first_directory(root: pathlib.Path, paths: Iterable[str]) -> pathlib.Path:
    for path in paths:
        if (root / path).is_dir():
            return root / path
    raise errors.HostError("The kernel package holds no modules.")


def _own_files() -> dict[str, initramfs.Entry]:
    entries = {
        path: initramfs.regular(content, 0o755 if content.startswith(b"#!") else 0o644)
        for path, content in recipes.files("tiny")
    }
    return entries | {f"sbin/{name}": initramfs.link("leave") for name in _OWN_COMMANDS}
