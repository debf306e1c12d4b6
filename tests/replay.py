"""Machines as they would be on other hosts: recorded facts, a fixed store, a fixed image."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from vmctl.host import nesting, verdict
from vmctl.host.facts import HostFacts
from vmctl.machine import resolve
from vmctl.machine.model import DiskFormat, Image, Machine
from vmctl.spec import load
from vmctl.spec.model import ImageSpec
from vmctl.store.layout import Layout
from vmctl.store.storage import Storage

ROOT = pathlib.Path(__file__).parents[1]
TEMPLATES = ROOT / "templates"
HOSTS = ROOT / "tests" / "data" / "hosts"
STORE = pathlib.Path("/var/lib/vmctl")

ALL_DRIVERS = frozenset({"virtio", "ahci", "ide", "e1000", "e1000e"})
TINY = Image(
    name="tiny",
    digest="0" * 64,
    kernel=f"{STORE}/images/{'0' * 64}/kernel",
    efi_kernel=f"{STORE}/images/{'0' * 64}/bzimage",
    initrd=f"{STORE}/images/{'0' * 64}/initrd",
    cmdline="console=ttyS0",
    drivers=ALL_DRIVERS,
    ready_pattern="vmctl-tiny: ready",
    ready_timeout=30.0,
    agent=True,
    user="root",
    memory=128 << 20,
)
DISTRIBUTION = Image(
    name="distribution",
    digest="1" * 64,
    disk=f"{STORE}/images/{'1' * 64}/disk.qcow2",
    disk_format=DiskFormat.QCOW2,
    size=2 << 30,
    drivers=ALL_DRIVERS,
)

DEBIAN = Image(
    name="debian-12-min",
    digest="2" * 64,
    disk=f"{STORE}/images/{'2' * 64}/disk.qcow2",
    disk_format=DiskFormat.QCOW2,
    kernel=f"{STORE}/images/{'2' * 64}/kernel",
    efi_kernel=f"{STORE}/images/{'2' * 64}/bzimage",
    initrd=f"{STORE}/images/{'2' * 64}/initrd",
    cmdline="root=LABEL=root console=ttyS0",
    size=4 << 30,
    drivers=ALL_DRIVERS,
    agent=True,
    cloud_init=True,
    user="debian",
    ready_when="ssh",
    memory=256 << 20,
)

LAB_HOST = dataclasses.replace(DEBIAN, name="lab-host", memory=1 << 30)

CONTAINER = Image(
    name="container",
    digest="3" * 64,
    disk=f"{STORE}/images/{'3' * 64}/disk.raw",
    disk_format=DiskFormat.RAW,
    kernel=f"{STORE}/images/{'3' * 64}/kernel",
    efi_kernel=f"{STORE}/images/{'3' * 64}/bzimage",
    initrd=f"{STORE}/images/{'3' * 64}/initrd",
    cmdline="console=ttyS0",
    size=1 << 30,
    drivers=ALL_DRIVERS,
    agent=True,
    user="root",
    boot="kernel",
    container=True,
)


def host(name: str) -> HostFacts:
    """Return recorded facts."""
    return HostFacts.from_dict(json.loads((HOSTS / f"{name}.json").read_text()))


def surroundings(
    facts: HostFacts,
    *images: Image,
    session: bool = False,
    storage: Storage = Storage(direct=True, io_uring=True),
) -> resolve.Surroundings:
    """Return a fixed place on a host of these facts."""
    own = (TINY, DISTRIBUTION, DEBIAN, LAB_HOST, CONTAINER)
    known = {image.name: image for image in (*images, *own)}

    def find(wanted: ImageSpec) -> Image:
        return known[wanted.name]

    return resolve.Surroundings(
        facts=facts,
        kvm=verdict.kvm_verdict(facts, system=not session),
        nested=nesting.nested_verdict(facts, system=not session),
        layout=Layout(STORE),
        storage=storage,
        store_id="0123456789abcdef",
        images=find,
        session=session,
        qemu_owner="" if session else "+64055:+64055",
    )


def machines(
    spec: pathlib.Path, around: resolve.Surroundings, *sets: str, allow_outside: bool = True
) -> tuple[Machine, ...]:
    """Return the machines of a spec there."""
    return resolve.resolve(load.load(spec, sets, allow_outside=allow_outside), around)
