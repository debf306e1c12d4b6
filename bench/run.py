"""Time to the output of one command in a fresh tiny guest, and until nothing of it is left."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

from bench import argv
from bench.boot import MODES, PLAIN, command_line, process_of
from bench.login import forwarding, free_port
from bench.rounds import Contender, Group
from bench.site import PATIENCE, BenchError, Site, await_text

VMCTL = "vmctl run"
OUTPUT, GONE = METRICS = ("output_seconds", "gone_seconds")
NOTES = {
    VMCTL: "an image that lives in memory: made, started, logged in to, removed",
    PLAIN: "the arguments that libvirt gave it for `vmctl run`, without what is libvirt's own; "
    "ssh from the moment on when the guest says that it is ready; then SIGKILL",
}
_READY = b"vmctl-tiny: ready"
_TRY_EVERY = 0.02


class Colds:
    """The contenders of one mode; the peer is given the key of a run."""

    def __init__(self, site: Site, mode: str) -> None:
        self.site = site
        self.mode = mode
        self.directory = site.home / "bench" / f"run-{mode}"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.spec = self.directory / "vmctl.yaml"
        self.spec.write_text(f"image: tiny\nmemory: 128MiB\n{MODES[mode]}\n")
        self.key = self.directory / "id_ed25519"
        self.log = self.directory / "qemu.log"
        self.qemu = self._prepared()

    def measured(self) -> tuple[Group, list[Contender]]:
        """Return everyone and the group that their rounds go into."""
        found = [Contender(VMCTL, self._vmctl), Contender(PLAIN, self._qemu)]
        title = f"A command in a fresh guest, cold, mode {self.mode}"
        return Group(title, PLAIN, METRICS, dict(NOTES), subject=VMCTL), found

    def _prepared(self) -> list[str]:
        """Have a run leave its machine, and keep its key and what libvirt made of it."""
        report = self.directory / "report.json"
        words = ["run", "-q", str(self.spec), "--keep-on-failure", "--report", str(report)]
        command = [*self.site.vmctl, *words, "--", "false"]
        subprocess.run(command, env=self.site.env, check=False, timeout=PATIENCE)
        name = str(json.loads(report.read_text())["runs"][0]["machine"])
        try:
            shutil.copy(self.site.home / "machines" / name / self.key.name, self.key)
            self.key.chmod(0o600)
            return command_line(process_of(name))
        finally:
            self.site.call(*self.site.vmctl, "down", "-y", name)

    def _vmctl(self) -> dict[str, float]:
        began = time.monotonic()
        with subprocess.Popen(
            [*self.site.vmctl, "run", "-q", str(self.spec), "--", "echo", "here"],
            env=self.site.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdout is not None
            said = child.stdout.readline()
            output = time.monotonic()
            status = child.wait(PATIENCE)
        if (status, said) != (0, b"here\n"):
            raise BenchError(f"ended with {status} and said {said!r}")
        return {OUTPUT: output - began, GONE: time.monotonic() - began}

    def _qemu(self) -> dict[str, float]:
        port = free_port()
        self.log.unlink(missing_ok=True)
        command = [forwarding(word, port) for word in argv.standalone(self.qemu, str(self.log))]
        with self.site.started(command) as (child, began):
            await_text(self.log, _READY, child, lives=True)
            output = self._said(port, child)
            child.kill()
            child.wait(PATIENCE)
            return {OUTPUT: output - began, GONE: time.monotonic() - began}

    def _said(self, port: int, lives: subprocess.Popen[bytes]) -> float:
        """Run the same command over plain ssh; return when it has said its word."""
        options = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            # As vmctl chooses it: the client's first choice takes an emulated guest longer.
            "KexAlgorithms": "^curve25519-sha256",
        }
        told = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        words = ["ssh", "-F", "none", *told, "-i", str(self.key), "-p", str(port)]
        end = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(
                [*words, "root@127.0.0.1", "echo", "here"],
                env=self.site.env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
            if done.stdout == b"here\n":
                return time.monotonic()
            if time.monotonic() > end or lives.poll() is not None:
                raise BenchError(f"no login: {done.stderr.decode('utf-8', 'replace')}")
            time.sleep(_TRY_EVERY)
