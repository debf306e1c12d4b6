"""A box for Vagrant's libvirt provider, made of an image: its disk as it is, and a seed beside it.

The format is vagrant-libvirt's second one (metadata.json with `disks`): the seed is the machine's
second disk, by which cloud-init makes the user that Vagrant expects. So the image's disk is neither
mounted nor changed.
"""

from __future__ import annotations

import io
import json
import pathlib
import tarfile
import tempfile

from vmctl import errors, process
from vmctl.deadline import Deadline
from vmctl.images import lab_payload, seed
from vmctl.lab import program
from vmctl.machine.model import DiskFormat, Image
from vmctl.store import files

LAB_HOST = "lab-host"
"""The image that gets what it lacks for comparing: the program that measures."""

USER = "vagrant"
"""Who Vagrant logs in as, unless a Vagrantfile says otherwise."""

INSECURE_KEY = (
    "ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGE"
    "FHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9"
    "D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jM"
    "ZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9"
    "WhQ== vagrant insecure public key"
)
"""The published key that every box lets in; Vagrant puts one of its own there at the first `up`."""

_DISK, _SEED = "disk.qcow2", "seed.qcow2"
_MOUNT = "/run/vmctl-seed"
_TAKE_PROBE = (
    f"mkdir -p {_MOUNT} && mount -o ro /dev/disk/by-label/{seed.LABEL} {_MOUNT} && "
    f"cp {_MOUNT}/{program.BROUGHT.name}* /{lab_payload.LIBRARY}/vmctl/lab/probe/; umount {_MOUNT}"
)
_VAGRANTFILE = b"""\
Vagrant.configure("2") do |config|
  # Seconds: under plain emulation a start takes a minute or two.
  config.vm.boot_timeout = 900
end
"""


def write(image: Image, target: pathlib.Path, deadline: Deadline) -> None:
    """Write the box of an image that is in the store; `target` is there whole or not at all.

    Raises UsageError for an image that makes no box, HostError, ProgramError.
    """
    if not (image.disk and image.cloud_init) or image.disk_format is not DiskFormat.QCOW2:
        raise errors.UsageError(
            f"Image '{image.name}' makes no box: Vagrant needs a disk that starts by itself and "
            "a guest that reads a cloud-init seed.",
            hint="Take lab-host, or debian-12-min.",
        )
    draft = files.temporary(target)
    try:
        with tempfile.TemporaryDirectory() as directory:
            second = _seed(image, pathlib.Path(directory), deadline)
            with tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as archive:
                _add(archive, "metadata.json", json.dumps(metadata(), indent=1).encode())
                _add(archive, "Vagrantfile", _VAGRANTFILE)
                archive.add(second, _SEED, filter=_nobodys)
                archive.add(image.disk, _DISK, filter=_nobodys)
        draft.chmod(files.SHARED)
        files.publish(draft, target)
    except OSError as problem:
        raise errors.HostError(f"The box '{target}' cannot be written: {problem.strerror}.") from (
            problem
        )
    finally:
        draft.unlink(missing_ok=True)


def metadata() -> dict[str, object]:
    """Return what tells vagrant-libvirt which disks there are, and their order."""
    return {"provider": "libvirt", "format": "qcow2", "disks": [{"path": _DISK}, {"path": _SEED}]}


def _seed(image: Image, directory: pathlib.Path, deadline: Deadline) -> pathlib.Path:
    """Write the seed as vagrant-libvirt takes disks: in qcow2 format."""
    extra = program.luggage(directory) if image.name == LAB_HOST else {}
    raw, disk = directory / "seed.iso", directory / _SEED
    raw.write_bytes(seed.iso({**content(image).files(), **extra}))
    convert = ("qemu-img", "convert", "-f", "raw", "-O", "qcow2")
    process.run([*convert, raw, disk], deadline)
    return disk


def content(image: Image) -> seed.Content:
    """Return the seed's own files, the same for every machine made from the box."""
    config: dict[str, object] = {
        "users": [
            {
                "name": USER,
                "shell": "/bin/bash",
                "lock_passwd": True,
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": [INSECURE_KEY],
            }
        ],
        "ssh": {"emit_keys_to_console": False},
        "no_ssh_fingerprints": True,
        "manage_etc_hosts": "localhost",
        "locale": "false",
    }
    if image.name == LAB_HOST:
        config["bootcmd"] = [_TAKE_PROBE]
    meta = {"instance-id": f"vagrant-{image.digest[:12]}", "local-hostname": "vmctl"}
    return seed.Content(
        user_data=b"#cloud-config\n" + json.dumps(config, indent=1).encode() + b"\n",
        meta_data=json.dumps(meta).encode() + b"\n",
        # The image asks for addresses by itself, on whatever card it finds.
        network_config=json.dumps({"config": "disabled"}).encode() + b"\n",
    )


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))


def _nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who owns the store's file."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o644
    return entry
