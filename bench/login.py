"""Time to a command over ssh in a Debian guest at its first boot, by who starts the guest."""

from __future__ import annotations

import json
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence

from bench import argv
from bench.boot import MODES, PLAIN, VIRT_INSTALL, VMCTL, command_line, process_of
from bench.rounds import Contender, Group
from bench.site import PATIENCE, BenchError, Site, await_text

IMAGE = "debian-12-min"
LOGIN, RETURNED, LATE = METRICS = (
    "login_seconds",
    "command returns_seconds",
    "login after sshd begins to start_seconds",
)
NOTES = {
    VMCTL: "until `up` has returned, and one more login after that",
    PLAIN: "the arguments that libvirt gave it for `vmctl up`, without what is libvirt's own",
    VIRT_INSTALL: "its own defaults: the same disk, seed and memory, started by firmware and GRUB",
}
CPUS = 2
MEMORY = 1024

_SSHD = b"ssh.service"
_TRY_EVERY = 0.1
_SSH_PORT = 22


class Logins:
    """The contenders of one mode; peers are given the disk, the seed and the key of `vmctl up`."""

    def __init__(self, site: Site, mode: str) -> None:
        self.site = site
        self.mode = mode
        self.directory = site.home / "bench" / f"login-{mode}"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)
        self.name = f"{site.prefix}login"
        self.machine = site.home / "machines" / self.name
        self.spec = self.directory / "vmctl.yaml"
        self.spec.write_text(
            f"name: {self.name}\nproject: {self.name}\nimage: {IMAGE}\ncpus: {CPUS}\n"
            f"memory: {MEMORY}MiB\ndisk: 8GiB\nuser: bench\n{MODES[mode]}\n"
        )
        self.key = self.directory / "id_ed25519"
        self.seed = self.directory / "seed.iso"
        self.disk = self.directory / "root.qcow2"
        self.qemu = self._prepared()

    def measured(self) -> tuple[Group, list[Contender]]:
        """Return everyone and the group that their rounds go into."""
        found = [Contender(VMCTL, self._vmctl), Contender(PLAIN, self._qemu)]
        if shutil.which(VIRT_INSTALL):
            found.append(Contender(VIRT_INSTALL, self._virt_install))
        notes = {each.name: NOTES[each.name] for each in found}
        title = f"A command over ssh in {IMAGE} at its first boot, mode {self.mode}"
        return Group(title, PLAIN, METRICS, notes, subject=VMCTL), found

    def _prepared(self) -> list[str]:
        """Boot once; keep what peers need, and what libvirt made of the machine."""
        try:
            self.site.call(*self.site.vmctl, "up", "-q", str(self.spec))
            for path in (self.key, self.seed):
                shutil.copy(self.machine / path.name, path)
            self.key.chmod(0o600)
            self.seed.chmod(0o644)
            self.base = self._base()
            return command_line(process_of(self.name))
        finally:
            self._clear()

    def _base(self) -> pathlib.Path:
        """Return the image's disk: what the machine's own disk is an overlay on."""
        chain = ["qemu-img", "info", "-U", "--output=json", str(self.machine / "root.qcow2")]
        return pathlib.Path(json.loads(self.site.call(*chain))["full-backing-filename"])

    def _clear(self) -> None:
        self.site.remove(self.name)
        shutil.rmtree(self.machine, ignore_errors=True)

    def _fresh_disk(self) -> None:
        self.disk.unlink(missing_ok=True)
        form = self.base.suffix.removeprefix(".")
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", form, "-b", str(self.base)]
        self.site.call(*create, str(self.disk), "8G")

    def _vmctl(self) -> dict[str, float]:
        try:
            with self.site.started([*self.site.vmctl, "up", str(self.spec)]) as (child, began):
                console = self.machine / "console.log"
                begun = await_text(console, _SSHD, child, lives=False).came
                if child.wait(PATIENCE) != 0:
                    raise BenchError(f"ended with {child.returncode}")
                returned = time.monotonic()
                self._login(["-F", str(self.machine / "ssh.config"), self.name], child)
                ended = time.monotonic()
            return {LOGIN: ended - began, RETURNED: returned - began, LATE: returned - begun}
        finally:
            self._clear()

    def _qemu(self) -> dict[str, float]:
        self._fresh_disk()
        port = free_port()
        log = self.directory / "qemu.log"
        log.unlink(missing_ok=True)
        here, there = str(self.machine), str(self.directory)
        command = [
            forwarding(word, port).replace(here, there)
            for word in argv.standalone(self.qemu, str(log))
        ]
        with self.site.started(command) as (child, began):
            return self._reached(log, child, began, port, lives=True)

    def _virt_install(self) -> dict[str, float]:
        self._fresh_disk()
        port = free_port()
        log = self.directory / "inst.log"
        log.unlink(missing_ok=True)
        name = f"{self.name}-inst"
        card = (
            f"-netdev user,id=card,hostfwd=tcp:127.0.0.1:{port}-:{_SSH_PORT} "
            "-device virtio-net-pci,netdev=card,addr=0x10"
        )
        command = [
            *("virt-install", "--connect", self.site.uri, "--name", name, "--transient"),
            *("--virt-type", "qemu", "--cpu", "mode=maximum", "--memory", str(MEMORY)),
            *("--vcpus", str(CPUS), "--import", "--osinfo", "detect=off,require=off"),
            *("--disk", f"path={self.disk},format=qcow2,bus=virtio"),
            *("--disk", f"path={self.seed},device=cdrom"),
            *("--network", "none", f"--qemu-commandline={card}"),
            *("--graphics", "none", "--noautoconsole"),
            *("--serial", f"pty,log.file={log}"),
        ]
        try:
            with self.site.started(command) as (child, began):
                return self._reached(log, child, began, port, lives=False)
        finally:
            self.site.remove(name)

    def _reached(
        self,
        log: pathlib.Path,
        child: subprocess.Popen[bytes],
        began: float,
        port: int,
        *,
        lives: bool,
    ) -> dict[str, float]:
        """Try to log in from the moment on when sshd begins to start: nobody could be earlier."""
        begun = await_text(log, _SSHD, child, lives=lives).came
        self._login(self._plain_ssh(port), child if lives else None)
        ended = time.monotonic()
        return {LOGIN: ended - began, LATE: ended - begun}

    def _plain_ssh(self, port: int) -> list[str]:
        options = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
        }
        told = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["-F", "none", *told, "-i", str(self.key), "-p", str(port), "bench@127.0.0.1"]

    def _login(self, words: Sequence[str], lives: subprocess.Popen[bytes] | None) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(
                ["ssh", *words, "true"],
                env=self.site.env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
            if done.returncode == 0:
                return
            if time.monotonic() > end or (lives is not None and lives.returncode):
                raise BenchError(f"no login: {done.stderr.decode('utf-8', 'replace')}")
            time.sleep(_TRY_EVERY)


def forwarding(word: str, port: int) -> str:
    """Give the user network of a QEMU argument a way to the guest's ssh; others stay."""
    if word.startswith('{"type":"user"'):
        told = json.loads(word)
        told["hostfwd"] = [{"str": f"tcp:127.0.0.1:{port}-:{_SSH_PORT}"}]
        return json.dumps(told)
    if word.startswith("user,id=hostnet"):
        return f"{word},hostfwd=tcp:127.0.0.1:{port}-:{_SSH_PORT}"
    return word


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
