"""The container baseline: the guest's own root file system under a real OCI runtime."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.lab import direct
from vmctl.lab.job import PLACE, Job
from vmctl.lab.results import Contender, Run
from vmctl.lab.trial import Sheet, Voice, follow

MODE = "container"
RUNTIMES = ("runc", "crun")
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
_KINDS = ("pid", "net", "ipc", "uts", "mnt", "cgroup", "user", "time")
"""All kinds, by the names in /proc."""

HOST_ADDRESS, _OWN_ADDRESS, _PREFIX = "169.254.77.1", "169.254.77.2", 30
_SECONDS = 30.0
_TASKS = 256
_SCRIPT = "vmctl-lab-run"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a runtime is given: a directory with the root file system, and limits.

    `memory` in bytes; `cpus` the processors it may use; `netns` the name of its network namespace,
    empty where it gets one with nothing in it.
    """

    directory: pathlib.Path
    programs: pathlib.Path
    job: Job
    disk: pathlib.Path
    memory: int
    cpus: tuple[int, ...]
    netns: str = ""

    def configuration(self, identifier: str, args: list[str]) -> dict[str, Any]:
        """Return config.json (OCI runtime specification 1.0)."""
        kinds: list[dict[str, str]] = [{"type": kind} for kind in NAMESPACES]
        if self.netns:
            kinds[NAMESPACES.index("network")]["path"] = f"/run/netns/{self.netns}"
        return {
            "ociVersion": "1.0.2",
            "hostname": "lab",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["PATH=/sbin:/bin:/usr/sbin:/usr/bin"],
                "cwd": "/",
                "noNewPrivileges": True,
                "capabilities": {kind: [] for kind in ("bounding", "effective", "permitted")},
            },
            "root": {"path": "rootfs", "readonly": True},
            "mounts": self._mounts(),
            "linux": {
                "cgroupsPath": f"/{identifier}",
                "namespaces": kinds,
                "resources": {
                    "memory": {"limit": self.memory},
                    "cpu": {"cpus": ",".join(map(str, self.cpus))},
                    "pids": {"limit": _TASKS},
                    "devices": [{"allow": False, "access": "rwm"}],
                },
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
            },
        }

    def _mounts(self) -> list[dict[str, Any]]:
        """Return what is mounted: what every container has, the programs, and the disk."""
        bind = ["bind", "ro", "nosuid", "nodev"]
        return [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "mode=755", "size=1m"],
            },
            {
                "destination": "/tmp",  # noqa: S108  (the container's own)
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "nodev", "mode=1777", "size=16m"],
            },
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nodev", "noexec", "nosuid", "ro"],
            },
            {
                "destination": f"/{PLACE}",
                "type": "bind",
                "source": os.fspath(self.programs),
                "options": bind,
            },
            {
                "destination": "/disk",
                "type": "bind",
                "source": os.fspath(self.disk),
                "options": bind,
            },
        ]


@dataclasses.dataclass(slots=True, kw_only=True)
class Container:
    """The bundle under a runtime that was seen to work here."""

    name: str
    identifier: str
    runtime: str
    version: str
    bundle: Bundle
    entered: tuple[str, ...] = ()

    @property
    def contender(self) -> Contender:
        """Who it is."""
        return Contender(
            name=self.name,
            mode=MODE,
            isolation=(
                "the host's kernel: its system calls are the container's",
                self._namespaces(),
                self._limits(),
                "no capabilities, no new privileges, read-only root",
            ),
            topology={"cpus": len(self.bundle.cpus), "pinned_to": list(self.bundle.cpus)},
            argv=(self.version, *self._argv()),
        )

    def _argv(self) -> list[str]:
        words = [*runtime_words(self.runtime, self.bundle.directory), "run", "--bundle"]
        return [*words, os.fspath(self.bundle.directory), self.identifier]

    def _namespaces(self) -> str:
        """Return what its own process has told; before the first run, what it is to be in."""
        if not self.entered:
            return f"namespaces asked for: {', '.join(NAMESPACES)}"
        shared = [kind for kind in _KINDS if kind not in self.entered]
        return f"own namespaces: {', '.join(self.entered)}; the host's: {', '.join(shared)}"

    def _limits(self) -> str:
        cpus = ",".join(map(str, self.bundle.cpus))
        memory = self.bundle.memory >> 20
        return f"cgroup limits: cpuset {cpus}, memory {memory} MiB, {_TASKS} tasks, no devices"

    def run(self, number: int, place: int, voice: Voice) -> Run:
        """Run it once."""
        sheet = Sheet(self.name, number, place)
        direct.without_vm(sheet)
        peer = HOST_ADDRESS if self.bundle.netns else "-"
        (self.bundle.directory / "rootfs" / _SCRIPT).write_bytes(self.bundle.job.script(peer))
        configure(self.bundle, self.identifier, ["/bin/sh", f"/{_SCRIPT}", f"/{PLACE}", "/disk"])
        why = follow(self._argv(), sheet, self.bundle.job, voice, self._delete)
        self.entered = entered(sheet.report.facts)
        if not self.bundle.netns:
            for workload in self.bundle.job.workloads:
                if workload.startswith("net-"):
                    sheet.report.missing[workload] = "its network namespace has no card in it"
        return sheet.finished(why)

    def _delete(self) -> None:
        delete(self.runtime, self.bundle.directory, self.identifier)


def entered(facts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the kinds of namespaces in which the container's process is not with us."""
    own = []
    for kind in _KINDS:
        told = facts.get(f"namespace-{kind}", "")
        with contextlib.suppress(OSError):
            if told and told != os.readlink(f"/proc/self/ns/{kind}"):
                own.append(kind)
    return tuple(own)


def configure(bundle: Bundle, identifier: str, args: list[str]) -> None:
    """Write config.json."""
    text = json.dumps(bundle.configuration(identifier, args), indent=1)
    (bundle.directory / "config.json").write_text(text)


def runtime_words(runtime: str, directory: pathlib.Path) -> list[str]:
    """Return the runtime with its state in the bundle's directory, among nobody else's."""
    return [runtime, "--root", os.fspath(directory / "state")]


def delete(runtime: str, directory: pathlib.Path, identifier: str) -> None:
    """Remove what is left of a container; fine where nothing is."""
    words = [*runtime_words(runtime, directory), "delete", "--force", identifier]
    process.run(words, Deadline.after(_SECONDS), check=False)


def working_runtime(bundle: Bundle, identifier: str) -> tuple[str, str]:
    """Return the first OCI runtime that runs a program here, and its version.

    It is tried: a runtime may be there and refuse the host's cgroups. Raises HostError with what
    each of them said.
    """
    complaints = []
    for runtime in RUNTIMES:
        if process.find(runtime) is None:
            complaints.append(f"{runtime} is not installed")
            continue
        trial = ["run", "0.001", "1", "-", "0", "-", "0"]
        configure(bundle, identifier, [f"/{PLACE}/probe", *trial])
        words = [*runtime_words(runtime, bundle.directory), "run", "--bundle"]
        words += [os.fspath(bundle.directory), identifier]
        done = process.run(words, Deadline.after(_SECONDS), check=False)
        delete(runtime, bundle.directory, identifier)
        if done.status == 0 and b"vmctl-lab end" in done.stdout:
            version = process.run([runtime, "--version"], Deadline.after(_SECONDS)).text
            return runtime, version.partition("\n")[0].strip()
        said = " ".join((done.complaint or done.text).split())[:160]
        complaints.append(f"{runtime}: {said or f'status {done.status}'}")
    raise errors.HostError(
        f"No OCI runtime works here: {'; '.join(complaints)}.",
        hint="Install one: sudo apt-get install runc",
    )


@contextlib.contextmanager
def network(name: str) -> Iterator[str]:
    """Make a network namespace with one end of a veth pair in it, for the length of the block.

    Yields its name, or nothing where that is not allowed here.
    """
    made = False
    try:
        made = _made(name)
        yield name if made else ""
    finally:
        if made:
            drop_network(name)


def network_name(token: str) -> str:
    """Return the name of a comparison's network namespace."""
    return f"vmctl-lab-{token}"


def drop_network(name: str) -> None:
    """Remove a network namespace with its veth pair; fine where there is none."""
    if pathlib.Path("/run/netns", name).exists():
        process.run(["ip", "netns", "del", name], Deadline.after(_SECONDS), check=False)


def _made(name: str) -> bool:
    if os.geteuid() != 0:
        return False
    ours, theirs = f"v{name[-8:]}a", f"v{name[-8:]}b"
    words = (
        f"netns add {name}",
        f"link add {ours} type veth peer name {theirs} netns {name}",
        f"addr add {HOST_ADDRESS}/{_PREFIX} dev {ours}",
        f"link set {ours} up",
        f"-n {name} addr add {_OWN_ADDRESS}/{_PREFIX} dev {theirs}",
        f"-n {name} link set {theirs} up",
        f"-n {name} link set lo up",
    )
    try:
        for line in words:
            process.run(["ip", *line.split()], Deadline.after(_SECONDS))
    except errors.VmctlError:
        drop_network(name)
        return False
    return True
