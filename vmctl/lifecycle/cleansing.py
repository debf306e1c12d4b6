"""Takes out of copied disks what says whose copy they are: ids, keys, leases, first-boot state.

It is done in a guest of vmctl's own, before the copy is ever started: a disk is what its guest made
of it, and no program of the host opens the file systems of strangers. That guest is defined nowhere
and ends with vmctl, however that ends. (What has to go: virt-sysprep(1), cloud-init clean.)
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

from vmctl import errors
from vmctl.deadline import TCG_PATIENCE, Deadline
from vmctl.hypervisor import agent, domains, transient
from vmctl.lifecycle.schedule import Worker
from vmctl.lifecycle.steps import Site
from vmctl.machine.effects import SYSTEM_DISK
from vmctl.machine.limits import NO_LIMITS
from vmctl.machine.model import (
    Chipset,
    Devices,
    Disk,
    Display,
    Firmware,
    Image,
    Machine,
    Mode,
)
from vmctl.machine.state import State
from vmctl.machine.xml import domain as domain_xml
from vmctl.store import files
from vmctl.store.layout import MachineFiles

KEEP = "--keep-identity"
"""The option that leaves all of this out."""

_IMAGE = "tiny"
_BUILD_SECONDS = 1800.0
_SECONDS = 120.0
_POLL = 0.05
_MEMORY = 192 << 20
_NONE = 3
"""What the script ends with where it found no system."""

_HIDDEN = 4
"""What it ends with where a system keeps things on a file system that cannot be mounted."""

_SCRIPT = r"""
# $1: the name of the new machine; $2: the key that let vmctl into the old one; $3: "all" where all
# disks of the old one were copied. In ash of busybox.
# What is secret is overwritten before it is removed: free blocks can still be read from the disk.
name=$1 key=$2 copied=$3 r=/run/copy found=3
mkdir -p "$r"
# The agent is there before the disks are, and disks without partitions are mounted by the boot.
while ps | grep -q '[/]etc/boot/start'; do usleep 50000; done
umount /data /mnt/* 2> /dev/null
modprobe -qa ext4 vfat nls_ascii nls_cp437

# Overwrites files and removes them; what is not there, or is a link, is passed over.
destroy() {
    for file in "$@"; do
        if [ -f "$file" ] && [ ! -L "$file" ]; then shred -f -n 0 -z -u "$file"; fi
    done
}

clean() {
    destroy "$r"/etc/ssh/ssh_host_* "$r"/etc/dropbear/dropbear_*_host_key \
        "$r"/var/lib/systemd/random-seed "$r"/var/lib/systemd/credential.secret \
        "$r"/var/lib/urandom/random-seed "$r"/boot/efi/loader/random-seed \
        "$r"/var/lib/NetworkManager/secret_key "$r"/var/lib/NetworkManager/*.lease \
        "$r"/var/lib/dhcp/*.lease* "$r"/var/lib/dhclient/*.lease* "$r"/var/lib/dhcpcd/*.lease* \
        "$r"/var/lib/dbus/machine-id "$r"/var/log/cloud-init.log "$r"/var/log/cloud-init-output.log
    if [ -d "$r/var/lib/cloud" ]; then
        find "$r/var/lib/cloud" -xdev -path "$r/var/lib/cloud/seed" -prune -o -type f \
            -exec shred -f -n 0 -z {} +
        find "$r/var/lib/cloud" -mindepth 1 -maxdepth 1 ! -name seed -exec rm -rf {} +
    fi
    rm -f "$r"/etc/udev/rules.d/70-persistent-net.rules \
        "$r"/etc/systemd/network/10-cloud-init-* "$r"/etc/netplan/50-cloud-init.yaml \
        "$r"/etc/network/interfaces.d/50-cloud-init* \
        "$r"/etc/NetworkManager/system-connections/cloud-init-*
    # Empty, not gone: without the file systemd takes the start for the first one after installing.
    if [ -f "$r/etc/machine-id" ]; then
        shred -f -n 0 -z "$r/etc/machine-id"
        : > "$r/etc/machine-id"
    fi
    if [ -f "$r/etc/hostname" ]; then echo "$name" > "$r/etc/hostname"; fi
    if [ "$key" ] && [ -f "$r/etc/passwd" ]; then lock_out; fi
}

lock_out() {
    for file in $(cut -d: -f6 "$r/etc/passwd" | sort -u); do
        file=$r$file/.ssh/authorized_keys
        if [ -f "$file" ] && grep -qF "$key" "$file"; then
            grep -vF "$key" "$file" > /run/others
            shred -f -n 0 -z "$file"
            cat /run/others > "$file"
        fi
    done
}

# Tells whether what is cleaned can lie on what the system mounts at $1.
matters() {
    local place
    for place in boot/efi/loader etc/ssh etc/dropbear etc/udev/rules.d etc/systemd/network \
        etc/netplan etc/network/interfaces.d etc/NetworkManager/system-connections var/log \
        var/lib/cloud var/lib/dbus var/lib/dhclient var/lib/dhcp var/lib/dhcpcd \
        var/lib/NetworkManager var/lib/systemd/credential.secret var/lib/urandom; do
        case /$place/ in "$1"/*) return 0 ;; esac
    done
    if [ "$key" ] && [ -f "$r/etc/passwd" ]; then
        cut -d: -f6 "$r/etc/passwd" > /run/homes
        while read -r place; do
            case $place/.ssh/ in "$1"/*) return 0 ;; esac
        done < /run/homes
    fi
    return 1
}

# Names the partition with the identity $1, by the tables of the disks (GPT, else MBR).
partition() {
    local path number disk identity
    for path in /sys/class/block/vd*/partition; do
        if [ ! -e "$path" ]; then continue; fi
        read -r number < "$path"
        path=${path%/partition}
        disk=/dev/${path##*/}
        disk=${disk%"$number"}
        if [ "$(dd if="$disk" bs=8 skip=64 count=1 2> /dev/null)" = "EFI PART" ]; then
            identity=$(dd if="$disk" bs=16 skip=$((57 + 8 * number)) count=1 2> /dev/null |
                hexdump -e '1/4 "%08x-" 2/2 "%04x-" 2/1 "%02x" "-" 6/1 "%02x"')
        else
            identity=$(dd if="$disk" bs=4 skip=110 count=1 2> /dev/null | hexdump -e '1/4 "%08x"')
            identity=$identity-$(printf %02x "$number")
        fi
        if [ "$identity" = "$1" ]; then echo "/dev/${path##*/}"; fi
    done
}

# Names the device that fstab calls $1; here all disks are virtio's. Says nothing for one that is
# not there, and "hidden" for one that may be: in a volume, in an array, or encrypted.
device_of() {
    local device
    case $1 in
        UUID=* | LABEL=*) findfs "$1" 2> /dev/null ;;
        PARTUUID=*) partition "$(echo "${1#*=}" | tr A-F a-f)" ;;
        /dev/disk/by-uuid/*) findfs "UUID=${1##*/}" 2> /dev/null ;;
        /dev/disk/by-label/*) findfs "LABEL=${1##*/}" 2> /dev/null ;;
        /dev/disk/by-partuuid/*) device_of "PARTUUID=${1##*/}" ;;
        /dev/[hsv]d[a-z]*)
            device=/dev/vd${1#/dev/?d}
            if [ -b "$device" ]; then echo "$device"; fi
            ;;
        *) echo hidden ;;
    esac
}

# Mounts what fstab calls $1 at $2, with the options $3. Fails where it cannot be mounted, and what
# is cleaned can lie on it.
join() {
    local device kind
    # Through a link it would be mounted elsewhere.
    if [ "$(readlink -f "$r$2")" != "$r$2" ]; then
        device=hidden
    elif is_bind "$3"; then
        if mount -o bind "$r$1" "$r$2" 2> /dev/null; then return 0; fi
        device=''
        if [ -d "$r$1" ]; then device=hidden; fi
    else
        device=$(device_of "$1" | head -n 1)
    fi
    if [ ! "$device" ] && [ "$copied" != all ]; then return 0; fi
    if [ -b "$device" ]; then
        for kind in ext4 vfat; do
            if mount -t "$kind" -o noatime "$device" "$r$2" 2> /dev/null; then return 0; fi
        done
    fi
    ! matters "$2"
}

is_bind() {
    case ,$1, in *,bind,* | *,rbind,*) return 0 ;; esac
    return 1
}

# Mounts below the system what its fstab names. Fails where something is to be cleaned that cannot
# be reached. What lies in memory, on other machines or on a CD is nothing of the copy.
join_all() {
    local place what kind options
    if [ -L "$r/etc/fstab" ]; then
        echo "/etc/fstab is a link" >&2
        return 1
    fi
    if [ ! -f "$r/etc/fstab" ]; then return 0; fi
    # What is mounted on something comes after it; what shows a part of another last of all.
    tr -d '"\r' < "$r/etc/fstab" | awk '$1 !~ /^#/ && NF > 2 {
        print (("," $4 ",") ~ /,r?bind,/), $2, $1, $3, $4 }' | sort > /run/fstab
    while read -r _ place what kind options; do
        case $kind in
            swap | proc | sysfs | tmpfs | ramfs | devtmpfs | devpts | cgroup*) continue ;;
            rpc_pipefs | binfmt_misc | securityfs | debugfs | tracefs) continue ;;
            hugetlbfs | mqueue | configfs | efivarfs) continue ;;
            nfs* | cifs | smb* | 9p | virtiofs | fuse.sshfs | iso9660 | udf) continue ;;
        esac
        while [ "$place" != "${place%/}" ]; do place=${place%/}; done
        case $place in /*) ;; *) continue ;; esac
        if ! join "$what" "$place" "$options"; then
            echo "'$what', which the system has at '$place', cannot be read" >&2
            return 1
        fi
    done < /run/fstab
}

# Unmounts all that is mounted at $1 and below it, what came last first.
leave() {
    local place
    awk '{ print $2 }' /proc/mounts | grep -E "^$1(/|\$)" | tac > /run/mounts
    while read -r place; do
        fstrim "$place" > /dev/null 2>&1
        umount "$place" || return 1
    done < /run/mounts
}

for path in /sys/class/block/sd* /sys/class/block/vd*; do
    device=/dev/${path##*/}
    for kind in ext4 vfat; do
        if mount -t "$kind" -o noatime "$device" "$r" 2> /dev/null; then
            destroy "$r/loader/random-seed"
            if [ -d "$r/etc" ]; then
                join_all || exit 4
                clean || exit 1
                found=0
            fi
            sync
            leave "$r" || exit 1
            break
        fi
    done
done
sync
exit "$found"
"""


def needed(machine: Machine) -> bool:
    """Tell whether a machine's disks hold a system, and not only data beside one in memory."""
    return any(disk.name == SYSTEM_DISK for disk in machine.disks)


def cleanse(
    site: Site, machine: Machine, source: MachineFiles, worker: Worker, *, whole: bool = True
) -> None:
    """Have the copied disks of `machine` hold nothing of its source's; nobody uses them yet.

    `source` are the files of the machine that they were copied from; `whole` says that all of its
    disks were. Raises UsageError where no system is found that could be cleaned, or not all of
    one, HostError (no room, no image), HypervisorError, WaitTimeoutError, GuestError.
    """
    image = _image(site, worker)
    with worker.step("take out keys and ids", patient=True):
        place = site.layout.machine(machine.name)
        log = files.temporary(place.console_log)
        try:
            with _guest(site, _washer(machine, image, log)) as name:
                words = (machine.hostname, _key(source), "all" if whole else "part")
                status = _run(site, name, words, machine, worker)
        finally:
            log.unlink(missing_ok=True)
    if status == _NONE and _is_container(site, machine):
        return
    if status == _NONE:
        raise errors.UsageError(
            f"On the disks of machine '{source.directory.name}' there is no system that vmctl can "
            "read (ext4): its keys and ids would be those of the copy.",
            hint=f"Copy it as it is, and change them inside: {KEEP}",
        )
    if status == _HIDDEN:
        raise errors.UsageError(
            f"The system of machine '{source.directory.name}' has file systems that vmctl cannot "
            "read (ext4, FAT): keys and ids there would be those of the copy.",
            hint=f"Copy it as it is, and change them inside: {KEEP}",
        )
    if status:
        raise errors.GuestError(
            f"The keys and ids of machine '{source.directory.name}' could not be taken out of the "
            "copy: its file system takes no changes.",
            hint=f"Let it check its file systems: vmctl start {source.directory.name}",
        )


def _is_container(site: Site, machine: Machine) -> bool:
    """Tell whether the disk holds a container's files, which need not be those of a system."""
    from vmctl.images import catalog

    base = catalog.stored(site.layout, machine.image.digest) if machine.image else None
    return base is not None and base.container


def _image(site: Site, worker: Worker) -> Image:
    """Return the image of the guest that does it; it is built where it is not there yet."""
    # Dear to import.
    from vmctl.images import build, catalog

    image = catalog.find(site.layout, _IMAGE)
    if image.present:
        return image
    with worker.step(f"build image {_IMAGE}", patient=True) as progress:

        def told(what: str, done: int, total: int) -> None:
            progress(what, done, total)

        try:
            return build.ensure(site.layout, _IMAGE, Deadline.after(_BUILD_SECONDS), told)
        except errors.VmctlError as problem:
            problem.hint = f"{problem.hint} To leave keys and ids on the copy: {KEEP}".strip()
            raise


def _key(source: MachineFiles) -> str:
    """Return the key that lets vmctl into the source, as authorized_keys has it; else nothing."""
    path = source.ssh_key.with_name(f"{source.ssh_key.name}.pub")
    try:
        words = path.read_text().split()
    except OSError:
        return ""
    return words[1] if len(words) > 1 else ""


def _washer(machine: Machine, image: Image, log: pathlib.Path) -> Machine:
    """Return a machine that has the disks of another one and is started from memory."""
    own = dataclasses.replace(image, cmdline=f"{image.cmdline} vmctl.format=no")
    return dataclasses.replace(
        machine,
        name=f"vmctl-copy-{uuid.uuid4().hex[:12]}",
        uuid=str(uuid.uuid4()),
        hostname="copy",
        mode=Mode.of(machine.accel, Devices.VIRTIO),
        chipset=Chipset.Q35,
        firmware=Firmware.BIOS,
        cpus=1,
        cpus_max=1,
        memory=_MEMORY,
        memory_max=_MEMORY,
        image=own,
        disks=tuple(_disk(disk) for disk in machine.disks),
        console_log=str(log),
        display=Display.NONE,
        limits=NO_LIMITS,
        nested=False,
        cdroms=(),
        boot_order=(),
        nics=(),
        forwards=(),
        mounts=(),
        tpm=False,
        nvram="",
        seed="",
        user="",
        vsock=False,
    )


def _disk(disk: Disk) -> Disk:
    return dataclasses.replace(disk, aio="threads", direct=False)


@contextlib.contextmanager
def _guest(site: Site, machine: Machine) -> Iterator[str]:
    """Have the machine run for the block, for nobody else to see or to keep."""
    written = domain_xml.write(machine)
    for element in written.root.findall("metadata"):
        # By this others would take it for a machine of the store.
        written.root.remove(element)
    domain = transient.start(site.connection, written.text(), "the guest that cleans the copy")
    try:
        yield machine.name
    finally:
        domains.force_off(domain)


def _run(site: Site, name: str, words: tuple[str, ...], machine: Machine, worker: Worker) -> int:
    """Run the script and return its status."""
    deadline = Deadline.after(_SECONDS * (TCG_PATIENCE if machine.accel.value == "tcg" else 1))
    while not agent.answers(site.connection, name, deadline):
        _look(site, name, deadline, worker)
    arguments = {
        "path": "/bin/sh",
        "arg": ["-c", _SCRIPT, "sh", *words],
        "capture-output": True,
    }
    number = agent.ask(site.connection, name, "guest-exec", arguments, deadline)["pid"]
    while True:
        answer: dict[str, Any] = agent.ask(
            site.connection, name, "guest-exec-status", {"pid": number}, deadline
        )
        if answer.get("exited"):
            break
        _look(site, name, deadline, worker)
    said = base64.b64decode(answer.get("err-data", "")).decode("utf-8", "replace")
    status = int(answer.get("exitcode", 1))
    if status not in (0, _NONE) and said:
        worker.note("warning", said.strip().splitlines()[-1])
    return status


def _look(site: Site, name: str, deadline: Deadline, worker: Worker) -> None:
    """Wait a moment; raise where there is nothing to wait for any more."""
    if worker.cancelled:
        raise errors.InterruptError("Interrupted.")
    domain = domains.find(site.connection, name)
    if domain is None:
        raise errors.HypervisorError("The guest that cleans the copy ended.")
    if domains.state(domain)[0] is State.PAUSED:
        # QEMU halts a guest whose disk cannot grow.
        raise errors.HostError(
            f"There is no room left in '{site.layout.home}' to clean the copy.",
            hint="Free some disk space, then run the same command again.",
        )
    if deadline.passed:
        raise errors.WaitTimeoutError(
            f"The guest that cleans the copy did not answer within {deadline.seconds:.0f} s."
        )
    deadline.pause(_POLL)
