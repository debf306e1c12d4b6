"""Which directories of the host a guest may have, and how they reach it. Pure."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vmctl.machine.model import Mode, Mount, Share
from vmctl.spec.objection import Objection
from vmctl.spec.paths import holds

if TYPE_CHECKING:
    # Dear to import, and most commands read no spec.
    from vmctl.spec.model import MountSpec

WAY_OUT = "copy what is needed with vmctl cp, or use a mode with virtio devices"


@dataclasses.dataclass(frozen=True, slots=True)
class Means:
    """What can be had here: whose libvirt (`session`), whether vmctl is root, and virtiofsd."""

    session: bool
    root: bool
    virtiofsd: bool

    def share(self, *, writable: bool) -> Share:
        """Return how a directory reaches the guest.

        Libvirt refuses a read-only virtiofs ("virtiofs does not yet support read-only mode", 9.0),
        and what the guest alone promises is no protection: so read-only ones are 9p, where QEMU
        itself refuses to write. The session connection has no virtiofs. Virtiofsd runs as root
        and gives the guest's root the rights of the host's: only root may ask for it.
        """
        if writable and self.virtiofsd and self.root and not self.session:
            return Share.VIRTIOFS
        return Share.NINE_P


def resolve(wanted: Sequence[MountSpec], means: Means) -> tuple[Mount, ...]:
    """Return the mounts of a machine, those that others lie in first."""
    mounts = (
        Mount(
            host=mount.host,
            guest=mount.guest,
            writable=mount.writable,
            share=means.share(writable=mount.writable),
        )
        for mount in wanted
    )
    return tuple(sorted(mounts, key=lambda mount: mount.guest.split("/")))


def objections(wanted: Sequence[MountSpec], mode: Mode, store: str) -> Iterator[Objection]:
    """Yield what is wrong with a machine's mounts; `store` is the directory that vmctl owns."""
    if wanted and mode.devices is not Mode.PARAVIRT.devices:
        message = (
            f"mounts need a virtio device, and mode '{mode}' has none: neither 9p nor virtiofs"
        )
        yield Objection(("mounts",), message, WAY_OUT)
    own = os.path.realpath(store)
    for number, mount in enumerate(wanted):
        place = ("mounts", number, "host")
        if holds(own, mount.host):
            yield Objection(place, f"'{mount.host}' lies in vmctl's own store, which has its keys")
        elif mount.writable and holds(mount.host, own):
            message = f"'{mount.host}' holds vmctl's own store and is never mounted writable"
            yield Objection(place, message, "leave out 'writable', or mount a directory below it")


def options(mount: Mount) -> str:
    """Return the guest's mount options.

    The message size is the kernel's own default since 5.17; older ones take 8 KiB. With `mmap` a
    program may map files of a writable 9p; nothing else is cached, so both sides see changes.
    """
    words = ["rw" if mount.writable else "ro", "nosuid", "nodev"]
    if mount.share is Share.NINE_P:
        words += ["trans=virtio", "version=9p2000.L", "msize=131072"]
        words += ["cache=mmap"] if mount.writable else []
    return ",".join(words)


def fstab(mounts: Sequence[Mount]) -> str:
    """Return the lines for the guest's /etc/fstab; `nofail`: a boot never waits for them."""
    return "".join(
        f"{mount.tag} {_escaped(mount.guest)} {mount.share} {options(mount)},nofail 0 0\n"
        for mount in mounts
    )


def _escaped(path: str) -> str:
    return path.replace("\\", "\\134").replace(" ", "\\040").replace("#", "\\043")


def guest_script(mounts: Sequence[Mount]) -> str:
    """Return the shell script that mounts them in the guest, now and at every boot.

    It runs as root, takes any number of runs, and says what failed: a line for each, with the
    mark `FAILED`, the tag, and why.
    """
    calls = "".join(
        f"share {shlex.join((mount.tag, mount.share, options(mount), mount.guest))}\n"
        for mount in mounts
    )
    return f"""{_FUNCTIONS}
lines={shlex.quote(fstab(mounts))}
remember
{calls}exit "$status"
"""


FAILED = "vmctl-mount-failed"
"""Begins the line that says which tag could not be mounted, and why."""

_FUNCTIONS = r"""status=0

# Puts the lines into a block of their own at the end of fstab, in place of those of earlier runs.
remember() {
    if [ ! -f /etc/fstab ]; then return; fi
    {
        sed '/^# vmctl: mounts$/,/^# vmctl: end$/d' /etc/fstab
        if [ "$lines" ]; then printf '# vmctl: mounts\n%s# vmctl: end\n' "$lines"; fi
    } > /etc/fstab.vmctl || { status=1; return; }
    if cmp -s /etc/fstab /etc/fstab.vmctl; then
        rm -f /etc/fstab.vmctl
    else
        chmod 644 /etc/fstab.vmctl && mv /etc/fstab.vmctl /etc/fstab
        if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
    fi
}

# Loads a driver. A container's files have none: those that init began with do.
driver() {
    modprobe -q "$1" 2> /dev/null || chroot /proc/1/root /sbin/modprobe -q "$1" 2> /dev/null || :
}

# share TAG KIND OPTIONS PATH
share() {
    while read -r source _; do
        if [ "$source" = "$1" ]; then return; fi
    done < /proc/mounts
    driver "$2"
    if [ "$2" = 9p ]; then driver 9pnet_virtio; fi
    if said=$(mkdir -p "$4" 2>&1 && mount -t "$2" -o "$3" "$1" "$4" 2>&1); then return; fi
    status=1
    while read -r flag kind; do
        if [ "${kind:-$flag}" = "$2" ]; then
            printf '%s %s %s\n' FAILED "$1" "$(echo "$said" | tail -n 1)"
            return
        fi
    done < /proc/filesystems
    printf '%s %s no-driver\n' FAILED "$1"
}""".replace("FAILED", FAILED)


def cloud_config(mounts: Sequence[Mount]) -> dict[str, list[list[str]]]:
    """Return the part of a #cloud-config that mounts them early in every boot.

    By `bootcmd`, not `mounts`: that one cannot name directories with spaces. A failure is left to
    the look at the guest once it is ready.
    """
    if not mounts:
        return {}
    return {"bootcmd": [["sh", "-c", guest_script(mounts)]]}
