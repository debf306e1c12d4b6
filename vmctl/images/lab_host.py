"""Builds the lab host: a Debian system with QEMU and libvirt, and vmctl itself put into it.

The system takes minutes and is kept in the user's cache, apart from vmctl, which changes with each
edit and is written into a copy of the finished disk within seconds.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.images import catalog, debian, lab_payload, recipes
from vmctl.images.job import Job, Product, Progress
from vmctl.images.lab_payload import Payload
from vmctl.machine.model import DiskFormat, Image
from vmctl.store.layout import Layout

BELOW = "debian-12-min"
"""The recipe whose system it is built on, with the same things left out."""

PACKAGES = (
    *("qemu-system-x86", "qemu-utils", "libvirt-daemon-system", "libvirt-daemon-system-systemd"),
    *("python3-libvirt", "dnsmasq-base", "crun"),
    # What compare measures with, too; and what takes files of the host's to a guest of Vagrant's.
    *("fio", "sysbench", "rt-tests", "iperf3", "sockperf", "rsync"),
)
GUEST_IMAGE = "tiny"
"""The image that is put in, so that nothing has to be fetched or built inside."""

_SYSTEM = "system-of-lab-host"
_CHECK_STATUSES = (0, 1)
"""What e2fsck says of a sound file system, and of one that it has put in order."""


Ensure = Callable[[Layout, str, Deadline, Progress], Image]
"""Returns an image, which it makes where it is absent."""


def make(ensure: Ensure, job: Job, directory: pathlib.Path) -> Product | None:
    """Build the image. Raises HostError, RefusedError, ProgramError, WaitTimeoutError."""
    layers = (BELOW, job.name)
    origin = recipes.system_fingerprint(layers)
    system = debian.System(_SYSTEM, (*debian.PACKAGES, *PACKAGES), layers, origin)
    made_by = debian.plan(job, system)
    guest = ensure(job.layout, GUEST_IMAGE, job.deadline, job.progress)
    payload = lab_payload.collect(job.layout, guest)
    if job.known == _inputs(job, made_by.inputs, payload):
        return None
    workshop = directory / "system"
    workshop.mkdir()
    product = debian.carry_out(job, made_by, workshop)
    job.progress("Putting vmctl in", 0, 0)
    name = catalog.disk_name(DiskFormat.QCOW2)
    disk = directory / name
    _put_in(payload, product.files[name], disk, directory, job)
    return Product(
        files={**product.files, name: disk},
        inputs=_inputs(job, product.inputs, payload),
        facts={**product.facts, "payload": payload.digest, GUEST_IMAGE: guest.digest},
    )


def _inputs(job: Job, system: str, payload: Payload) -> str:
    return job.inputs([system, payload.digest])


def _put_in(
    payload: Payload,
    source: pathlib.Path,
    target: pathlib.Path,
    directory: pathlib.Path,
    job: Job,
) -> None:
    """Write the payload into a copy of the system's disk, without root or mounts."""
    raw = directory / "disk.raw"
    convert = ("qemu-img", "convert", "-f", "qcow2", "-O", "raw")
    process.run([*convert, source, raw], job.deadline)
    source.unlink()
    file_system = f"{raw}?offset={debian.root_offset()}"
    spool = directory / "spool"
    spool.mkdir()
    script = spool / "commands"
    script.write_text("".join(f"{line}\n" for line in payload.commands(spool)))
    # Otherwise each build would have times of its own; and images would be of 1970 inside.
    moment = str(payload.moment)
    env = {"E2FSPROGS_FAKE_TIME": moment, "E2FSCK_TIME": moment, "TZ": "UTC"}
    done = process.run(["debugfs", "-w", "-f", script, file_system], job.deadline, env=env)
    _refuse_complaints(done)
    _check(file_system, job.deadline, env)
    job.progress("Compressing the disk", 0, 0)
    debian.compress(raw, target, job.deadline)
    raw.unlink()


def _refuse_complaints(done: process.Completed) -> None:
    """Raise ProgramError when debugfs said anything: it ends with status 0 whatever happened."""
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    complaints = [line for line in lines if line and not line.startswith("debugfs 1.")]
    if complaints:
        raise errors.ProgramError(
            "debugfs could not write vmctl's files into the disk.",
            details="\n".join(complaints[:10]),
        )


def _check(file_system: str, deadline: Deadline, env: dict[str, str]) -> None:
    done = process.run(["e2fsck", "-f", "-y", file_system], deadline, env=env, check=False)
    if done.status not in _CHECK_STATUSES:
        raise process.failure(done)
