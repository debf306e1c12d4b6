"""How the job starts in a guest: what is put behind the initramfs of its image. Pure.

The kernel unpacks archives one after the other (see initramfs-buffer-format), and what comes later
takes the place of what was there, so that the image itself stays as it is.
"""

from __future__ import annotations

import enum

from vmctl import errors
from vmctl.images import initramfs, recipes

PLACE = "vmctl-lab"
"""The archive's directory, and the first bytes of the disk."""

ANSWER_PORT = "/dev/ttyS1"

_LOOK = f"""\
for disk in /dev/sd? /dev/vd? /dev/hd?; do
    if [ "$(dd if="$disk" bs={len(PLACE)} count=1 2> /dev/null)" = {PLACE} ]; then
        tar -x -f "$disk" -C / 2> /dev/null
        exec sh /{PLACE}/run /{PLACE} "$disk" > {ANSWER_PORT} 2>&1
    fi
done
echo "vmctl-lab void job there is no disk that begins with {PLACE}" > {ANSWER_PORT}
"""

_START = f"""#!/bin/sh
# Runs the job that lies on one of the disks, whatever the mode calls it.
{_LOOK}"""

_START_AFTER_BOOT = f"""#!/bin/sh
# Runs the job that lies on one of the disks, when the system has come up and has an address.
systemctl is-system-running --wait > /dev/null 2>&1
tries=0
until [ "$(ip -4 route show default)" ] || [ "$tries" -ge 100 ]; do
    sleep 0.2
    tries=$((tries + 1))
done
{_LOOK}"""

_UNIT = f"""\
[Unit]
Description=the job of vmctl compare

[Service]
ExecStart=/bin/sh /run/{PLACE}-start
"""

_SWITCH_ROOT = f"""#!/bin/sh
# In the place of the program that goes from the initramfs into the system: it adds a unit there, in
# a /run that systemd keeps, and nothing is written to the disk.
run=$1/run
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$run"
mkdir -p "$run/systemd/system/multi-user.target.wants"
cp /{PLACE}/start "$run/{PLACE}-start"
cp /{PLACE}/unit "$run/systemd/system/{PLACE}.service"
ln -s ../{PLACE}.service "$run/systemd/system/multi-user.target.wants/{PLACE}.service"
exec /bin/busybox switch_root "$@"
"""


class Kind(enum.Enum):
    """How an image comes up, as far as the lab knows it."""

    TINY = "tiny"
    DEBIAN = "debian"
    """A system with systemd, behind an initramfs of our own with busybox in it."""

    @property
    def whole_in_initrd(self) -> bool:
        """True where the initramfs is the system, and there is no disk."""
        return self is Kind.TINY


IMAGES = ("tiny", "debian-12-min", "lab-host")
"""What the lab can run its job in."""


def kind(image: str) -> Kind:
    """Return how an image comes up. Raises UsageError for one that the lab does not know."""
    if image not in IMAGES:
        what = f"image '{image}'" if image else "a machine without an image"
        raise errors.UsageError(
            f"The lab cannot run its job in {what}.",
            hint=f"It can in these: {', '.join(IMAGES)}; or give compare no spec.",
        )
    return Kind.TINY if image == "tiny" else Kind.DEBIAN


def archive(image: str) -> bytes:
    """Return what is put behind the image's initramfs."""
    if kind(image) is Kind.TINY:
        return _tiny(dict(recipes.files(image))["etc/inittab"])
    return initramfs.archive(
        {
            f"{PLACE}/start": initramfs.regular(_START_AFTER_BOOT.encode(), 0o755),
            f"{PLACE}/unit": initramfs.regular(_UNIT.encode()),
            "sbin/switch_root": initramfs.regular(_SWITCH_ROOT.encode(), 0o755),
        }
    )


def _tiny(inittab: bytes) -> bytes:
    return initramfs.archive(
        {
            f"{PLACE}/start": initramfs.regular(_START.encode(), 0o755),
            "etc/inittab": initramfs.regular(inittab + f"::once:/{PLACE}/start\n".encode()),
        }
    )
