"""What the elements of a domain are for, in a few words, where a spec has no key for them."""

from __future__ import annotations

FIELD = "a spec cannot ask for it together with the rest"

_ABSENT = "machines that vmctl makes have it"

_MEANINGS = {
    "domain": "an element that vmctl has no key for",
    "domain/blkiotune": "share of the host's disks",
    "domain/clock": "how the guest's clock and timers run",
    "domain/cpu": "the processor that the guest sees",
    "domain/cpu/feature": "one feature of the guest's processor",
    "domain/cpu/topology": "how processors are spread over sockets, cores and threads",
    "domain/cputune": "share of the host's processors, and pinning to them",
    "domain/currentMemory": "memory that the guest has now",
    "domain/description": "text for people that a spec cannot hold",
    "domain/devices/audio": "sound on the host's side",
    "domain/devices/channel": "a channel between host and guest over virtio-serial",
    "domain/devices/console": "a console of the guest",
    "domain/devices/controller": "a bus that devices hang on",
    "domain/devices/disk": "a disk or CD-ROM that no spec can say: another bus, place or kind",
    "domain/devices/disk/alias": "libvirt's name for the device",
    "domain/devices/disk/backingStore": "the files below the disk, written out",
    "domain/devices/disk/boot": "its place in the order of starting",
    "domain/devices/disk/driver": "how the disk's file is opened",
    "domain/devices/disk/iotune": "limits of the disk",
    "domain/devices/disk/serial": "the serial number that the guest sees",
    "domain/devices/disk/source": "where the disk's data lies",
    "domain/devices/disk/target": "the bus that the disk is on, and its name there",
    "domain/devices/emulator": "which QEMU runs the machine",
    "domain/devices/filesystem": "a directory of the host in the guest",
    "domain/devices/graphics": "a screen that no spec can say: SPICE, SDL, or open to others",
    "domain/devices/hostdev": "a device of the host, given to the guest",
    "domain/devices/hub": "a USB hub",
    "domain/devices/input": "keyboard, mouse or tablet",
    "domain/devices/interface": "a network card",
    "domain/devices/interface/bandwidth": "limits of the network card",
    "domain/devices/interface/driver": "how the network card is served on the host",
    "domain/devices/interface/filterref": "rules for the card's packets",
    "domain/devices/interface/model": "which network card the guest sees",
    "domain/devices/interface/rom": "the card's boot ROM",
    "domain/devices/interface/target": "the name of the card's other end on the host",
    "domain/devices/memballoon": "how memory goes back to the host",
    "domain/devices/panic": "a device by which a guest says that it panicked",
    "domain/devices/parallel": "a parallel port",
    "domain/devices/redirdev": "USB devices of a viewer's computer, given to the guest",
    "domain/devices/rng": "random numbers from the host",
    "domain/devices/serial": "a serial port",
    "domain/devices/shmem": "memory shared with other programs",
    "domain/devices/smartcard": "a smart card",
    "domain/devices/sound": "a sound card",
    "domain/devices/tpm": "a TPM of another kind",
    "domain/devices/video": "the graphics card",
    "domain/devices/vsock": "sockets between host and guest without a network",
    "domain/devices/watchdog": "a watchdog",
    "domain/features": "what the firmware and the accelerator show or hide",
    "domain/genid": "a number that tells the guest that it was copied",
    "domain/iothreads": "threads of the host that serve disks",
    "domain/keywrap": "keys of the host's processor",
    "domain/launchSecurity": "memory encryption",
    "domain/memory": "most memory that the guest may have",
    "domain/memoryBacking": "what the guest's memory is made of: huge pages, locked, shared",
    "domain/memtune": "most memory that QEMU takes",
    "domain/name": "the name of the domain",
    "domain/numatune": "which memory of the host the guest's is taken from",
    "domain/on_crash": "what happens when the guest crashes",
    "domain/on_poweroff": "what happens when the guest powers off",
    "domain/on_reboot": "what happens when the guest reboots",
    "domain/os": "what the machine starts with",
    "domain/os/cmdline": "the kernel's command line",
    "domain/os/initrd": "the initial file system of a kernel that QEMU loads",
    "domain/os/kernel": "a kernel that QEMU loads itself",
    "domain/os/loader": "the firmware's file",
    "domain/os/nvram": "where UEFI's variables lie",
    "domain/os/smbios": "what the firmware tells of the maker",
    "domain/os/type": "the mainboard",
    "domain/perf": "events of the processor that are counted",
    "domain/pm": "sleep states of the guest",
    "domain/qos": "limits",
    "domain/seclabel": "the account that QEMU runs under",
    "domain/sysinfo": "what the firmware tells of the maker",
    "domain/title": "a short text for people",
    "domain/vcpu": "processors, and where they run",
}


def of(path: str, *, absent: bool = False) -> str:
    """Return what an element or attribute is for, by the nearest element that has a meaning."""
    place = path
    while place not in _MEANINGS:
        # In another name space, the tag is {uri}name, which may hold slashes.
        place = "domain" if "{" in place else place.rpartition("/")[0]
    meaning = _MEANINGS[place]
    if path.startswith("domain/{"):
        meaning = "arguments and settings that go straight to QEMU"
    return f"{meaning}; {_ABSENT}" if absent else meaning
