"""Every file name that vmctl owns on disk. Nothing here touches the disk."""

from __future__ import annotations

import dataclasses
import os
import pathlib

FORMAT = 1
"""Version of the directory tree; docs/on-disk.md says what each version holds."""


@dataclasses.dataclass(frozen=True, slots=True)
class MachineFiles:
    """The files of one machine."""

    directory: pathlib.Path

    @property
    def spec(self) -> pathlib.Path:
        """The spec as it was when the machine was made or last changed."""
        return self.directory / "spec.yaml"

    @property
    def record(self) -> pathlib.Path:
        """What `ps` needs to know without asking libvirt for each machine's XML."""
        return self.directory / "machine.json"

    @property
    def intent(self) -> pathlib.Path:
        """What is being done to the machine; there only while it is being done."""
        return self.directory / "intent.json"

    @property
    def released(self) -> pathlib.Path:
        """What was known of a machine that vmctl let go of, whose domain uses files from here."""
        return self.directory / "released.json"

    @property
    def console_log(self) -> pathlib.Path:
        """What the guest wrote to its first serial port."""
        return self.directory / "console.log"

    @property
    def nvram(self) -> pathlib.Path:
        """UEFI variables."""
        return self.directory / "nvram.fd"

    @property
    def vnc_password(self) -> pathlib.Path:
        """The password of the VNC display."""
        return self.directory / "vnc-password"

    @property
    def payload(self) -> pathlib.Path:
        """What the spec has the guest do at its first boot, with all secrets."""
        return self.directory / "payload.json"

    @property
    def seed(self) -> pathlib.Path:
        """What cloud-init reads: an ISO 9660 image labelled CIDATA."""
        return self.directory / "seed.iso"

    @property
    def ssh_key(self) -> pathlib.Path:
        """The private key that opens the guest; its public half ends in .pub."""
        return self.directory / "id_ed25519"

    @property
    def host_key(self) -> pathlib.Path:
        """The guest's own private key, by which it proves who it is; public half in .pub."""
        return self.directory / "ssh_host_ed25519_key"

    @property
    def known_hosts(self) -> pathlib.Path:
        """What ssh takes for the guest's host key."""
        return self.directory / "known_hosts"

    @property
    def ssh_config(self) -> pathlib.Path:
        """What ~/.ssh/config can include; written anew at every start."""
        return self.directory / "ssh.config"

    @property
    def inside(self) -> pathlib.Path:
        """What vmctl has done inside the guest: mounts made, provision steps carried out."""
        return self.directory / "inside.json"

    @property
    def snapshots(self) -> pathlib.Path:
        """The tree of the machine's snapshots, and which one it goes on from."""
        return self.directory / "snapshots.json"

    def snapshot(self, name: str) -> pathlib.Path:
        """What a snapshot needs to be gone back to: the definition and files of its moment."""
        return self.directory / f"snapshot-{name}.json"

    def snapshot_nvram(self, name: str) -> pathlib.Path:
        """The UEFI variables of a snapshot without memory."""
        return self.directory / f"snapshot-{name}.nvram"

    @property
    def saved(self) -> pathlib.Path:
        """Which run of the guest the memory is of that libvirt keeps of a saved machine."""
        return self.directory / "saved.json"

    @property
    def vmstate(self) -> pathlib.Path:
        """Where snapshots keep the memory of a machine that has no disk: a qcow2 image."""
        return self.directory / "snapshots.vmstate"

    def provision_log(self, number: int) -> pathlib.Path:
        """What provision step `number` (from 1) printed when it ran last."""
        return self.directory / f"provision-{number}.log"

    def disk(self, name: str) -> pathlib.Path:
        """The image of the machine's disk `name`; the system disk is called root."""
        return self.directory / f"{name}.qcow2"


@dataclasses.dataclass(frozen=True, slots=True)
class PoolFiles:
    """The files of one warm pool; its machines have their own, as all machines."""

    directory: pathlib.Path

    @property
    def record(self) -> pathlib.Path:
        """What was asked for: how many slots, of which spec, within which bounds."""
        return self.directory / "pool.json"

    @property
    def spec(self) -> pathlib.Path:
        """The spec of a pool that was made of an image alone."""
        return self.directory / "spec.yaml"

    @property
    def socket(self) -> pathlib.Path:
        """Where the supervisor listens."""
        return self.directory / "control.sock"

    @property
    def log(self) -> pathlib.Path:
        """What a supervisor in the background says."""
        return self.directory / "supervisor.log"

    def slot(self, number: int) -> pathlib.Path:
        """What is known of a slot that is ready: which state it came from, how it is reached."""
        return self.directory / f"slot-{number}.json"

    def lease(self, number: int) -> pathlib.Path:
        """Who has a slot: the lease's number in it, and a lock on it as long as the job runs."""
        return self.directory / f"slot-{number}.lease"


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """The store below one home directory."""

    home: pathlib.Path

    @classmethod
    def default(cls) -> Layout:
        """Return the user's store: $VMCTL_HOME, else root's or the user's own place (XDG)."""
        chosen = os.environ.get("VMCTL_HOME")
        if chosen:
            return cls(pathlib.Path(os.path.abspath(chosen)))
        if os.geteuid() == 0:
            return cls(pathlib.Path("/var/lib/vmctl"))
        data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return cls(pathlib.Path(data).expanduser() / "vmctl")

    @property
    def format_file(self) -> pathlib.Path:
        """Says which FORMAT the tree has, and the store's own id."""
        return self.home / "store.json"

    @property
    def machines(self) -> pathlib.Path:
        """One directory for each machine."""
        return self.home / "machines"

    def machine(self, name: str) -> MachineFiles:
        """The files of the machine `name`."""
        return MachineFiles(self.machines / name)

    @property
    def pools(self) -> pathlib.Path:
        """One directory for each warm pool."""
        return self.home / "pools"

    def pool(self, name: str) -> PoolFiles:
        """The files of the pool `name`."""
        return PoolFiles(self.pools / name)

    @property
    def backups(self) -> pathlib.Path:
        """One directory for each machine, with one for each of its backups; see store/backups."""
        return self.home / "backups"

    @property
    def images(self) -> pathlib.Path:
        """One directory for each image, named after its digest."""
        return self.home / "images"

    def image(self, digest: str) -> pathlib.Path:
        """The directory of the image with this sha256 (hex)."""
        return self.images / digest

    @property
    def image_names(self) -> pathlib.Path:
        """One small JSON file for each image name: which digest it stands for."""
        return self.home / "image-names"

    def image_pin(self, key: str) -> pathlib.Path:
        """What is remembered of an address that an image was pulled from; `key` is its sha256."""
        return self.home / "image-pins" / f"{key}.json"

    @property
    def lab(self) -> pathlib.Path:
        """One directory for the comparison that runs now; it is gone when that has ended."""
        return self.home / "lab"

    @property
    def executors(self) -> pathlib.Path:
        """A few small files for each machine that a CI system has: its spec, and whose it is."""
        return self.home / "executors"

    @property
    def locks(self) -> pathlib.Path:
        """Lock files; they are never removed, so that nobody waits on an unlinked one."""
        return self.home / "locks"

    def lock(self, kind: str, name: str) -> pathlib.Path:
        """The lock file of one thing: kind machine, image, network, pool or daemon."""
        return self.locks / f"{kind}-{name}.lock"
