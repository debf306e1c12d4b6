"""Time to the guest's first line on the serial console, by who starts the guest."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence

from bench import argv, domains
from bench.domains import Place
from bench.rounds import Contender, Group
from bench.site import BenchError, Site, await_text

FIRST_LINE = b"vmctl-tiny: user space"
METRICS = ("first line_seconds", "command returns_seconds", "QEMU's memory_bytes")
MODES = {
    "full": "mode: full",
    "tcg-virtio": "accel: tcg\ndevices: virtio",
    "hardware": "mode: hardware",
    "paravirt": "mode: paravirt",
}
VMCTL = "vmctl up"
SAME_XML = "virsh create, same XML"
HANDWRITTEN = "virsh create, handwritten XML"
PLAIN = "qemu-system-x86_64"
VIRT_INSTALL = "virt-install"
NOTES = {
    VMCTL: "",
    SAME_XML: "what `vmctl render` prints, but for name, UUID and console log",
    HANDWRITTEN: f"the same guest as the examples have it: {'; '.join(domains.DIFFERENCES)}",
    PLAIN: "the arguments that libvirt gave it for `vmctl up`, without the monitor, descriptors "
    "and secrets of libvirt's own; serial port to a file; as the calling user",
    VIRT_INSTALL: "its own defaults with a VNC display and no disk; kernel, initramfs, memory, CPU "
    "mode and NIC are the same",
}

_PAGE = 4096


class Boots:
    """The contenders of one mode."""

    def __init__(self, site: Site, mode: str) -> None:
        self.site = site
        self.mode = mode
        self.directory = site.home / "bench" / mode
        self.directory.mkdir(parents=True, exist_ok=True)
        self.name = f"{site.prefix}{mode}"
        self.spec = self.directory / "vmctl.yaml"
        self.spec.write_text(
            f"name: {self.name}\nproject: {self.name}\nimage: tiny\nmemory: 128MiB\n{MODES[mode]}\n"
        )
        self.log = site.home / "machines" / self.name / "console.log"
        self.rendered = site.call(*site.vmctl, "render", "-q", str(self.spec))
        self.qemu = self._command_line_of_libvirt()
        self._copy_image()

    def group(self, contenders: Sequence[Contender]) -> Group:
        """Return the group that the contenders' rounds go into."""
        notes = {each.name: NOTES[each.name] for each in contenders}
        title = f"Guest's first line, mode {self.mode}"
        return Group(title, SAME_XML, METRICS, notes, subject=VMCTL)

    def contenders(self, *, peers: bool) -> list[Contender]:
        """Return everyone: without `peers` only those that start the very same machine.

        virt-install is left out where it is not installed.
        """
        same = domains.renamed(self.rendered, self._place("same", copied=False))
        written = domains.handwritten(self.rendered, self._place("hand", copied=True))
        found = [
            Contender(VMCTL, self._vmctl),
            Contender(SAME_XML, lambda: self._virsh("same", same)),
            Contender(PLAIN, self._qemu),
        ]
        if peers:
            found.append(Contender(HANDWRITTEN, lambda: self._virsh("hand", written)))
        if peers and shutil.which(VIRT_INSTALL):
            found.append(Contender(VIRT_INSTALL, self._virt_install))
        return found

    def clear(self) -> None:
        """Remove the machine that vmctl made.

        Not with `vmctl down`: it would take longer, and this works where vmctl is what is broken.
        """
        self.site.remove(self.name)
        shutil.rmtree(self.log.parent, ignore_errors=True)

    def _place(self, who: str, *, copied: bool) -> Place:
        return Place(
            name=f"{self.name}-{who}",
            console=str(self._console(who)),
            kernel=str(self.directory / "kernel") if copied else "",
            initrd=str(self.directory / "initrd") if copied else "",
        )

    def _console(self, who: str) -> pathlib.Path:
        return self.directory / f"{who}.log"

    def _copy_image(self) -> None:
        """Give libvirt files that it may chown, which it does wherever the XML does not forbid."""
        told = domains.guest(self.rendered)
        for name, path in (("kernel", told.kernel), ("initrd", told.initrd)):
            shutil.copy(path, self.directory / name)

    def _command_line_of_libvirt(self) -> list[str]:
        with self._up() as (child, _):
            await_text(self.log, FIRST_LINE, child, lives=False)
            return command_line(process_of(self.name))

    @contextlib.contextmanager
    def _up(self) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
        try:
            with self.site.started([*self.site.vmctl, "up", str(self.spec)]) as running:
                yield running
                running[0].wait()
        finally:
            self.clear()

    def _vmctl(self) -> dict[str, float]:
        with self._up() as (child, began):
            return _observed(self.log, child, began, self.name)

    def _virsh(self, who: str, xml: str) -> dict[str, float]:
        file = self.directory / f"{who}.xml"
        file.write_text(xml)
        command = ["virsh", "-c", self.site.uri, "create", str(file)]
        return self._by_libvirt(who, command)

    def _virt_install(self) -> dict[str, float]:
        told = domains.guest(self.rendered)
        place = self._place("inst", copied=True)
        boot = f"kernel={place.kernel},initrd={place.initrd},kernel_args={told.cmdline}"
        command = [
            *("virt-install", "--connect", self.site.uri, "--name", place.name, "--transient"),
            *("--virt-type", told.type, "--machine", told.machine, "--cpu", f"mode={told.cpu}"),
            *("--memory", str(told.memory), "--vcpus", told.cpus, "--disk", "none", "--import"),
            *("--network", f"user,model={told.nic}", "--graphics", "vnc", "--noautoconsole"),
            *("--osinfo", "detect=off,require=off", "--boot", boot),
            *("--serial", f"pty,log.file={place.console}"),
        ]
        return self._by_libvirt("inst", command)

    def _by_libvirt(self, who: str, command: list[str]) -> dict[str, float]:
        log = self._console(who)
        log.unlink(missing_ok=True)
        name = f"{self.name}-{who}"
        try:
            with self.site.started(command) as (child, began):
                return _observed(log, child, began, name)
        finally:
            self.site.remove(name)

    def _qemu(self) -> dict[str, float]:
        log = self._console("qemu")
        log.unlink(missing_ok=True)
        with self.site.started(argv.standalone(self.qemu, str(log))) as (child, began):
            came = await_text(log, FIRST_LINE, child, lives=True).came
            return {METRICS[0]: came - began, METRICS[2]: _memory(child.pid)}


def _observed(
    log: pathlib.Path, child: subprocess.Popen[bytes], began: float, name: str
) -> dict[str, float]:
    """Wait for the first line and for the end of the command; the later one is waited out too."""
    arrival = await_text(log, FIRST_LINE, child, lives=False)
    returned = arrival.returned
    memory = _memory(process_of(name))
    if returned is None:
        child.wait()
        returned = time.monotonic()
    if child.returncode != 0:
        raise BenchError(f"ended with {child.returncode}")
    return {METRICS[0]: arrival.came - began, METRICS[1]: returned - began, METRICS[2]: memory}


def process_of(name: str) -> int:
    """Return the QEMU process of a domain, which libvirt names in its arguments."""
    mark = f"guest={name},".encode()
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in (entry / "cmdline").read_bytes():
                    return int(entry.name)
    raise BenchError(f"no QEMU runs '{name}'")


def command_line(process: int) -> list[str]:
    """Return the words that a process was started with."""
    words = pathlib.Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    return [word.decode() for word in words[:-1]]


def _memory(process: int) -> float:
    """Return the resident memory of a process in bytes."""
    pages = pathlib.Path(f"/proc/{process}/statm").read_text().split()[1]
    return float(int(pages) * _PAGE)
