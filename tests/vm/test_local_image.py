"""Machines on a disk image of the user's own, with a boot loader that really starts from it."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pathlib
import struct
import subprocess
import xml.etree.ElementTree as ET

import libvirt
import pytest

from tests.vm.conftest import PATIENCE, Site
from tests.vm.killing import killed, rubbish

pytestmark = pytest.mark.vm

MIB = 1 << 20
SECTOR = 512
PARTITION = 2048
"""First sector of the only partition."""

BOOT_CODE = [
    pathlib.Path(place) / "mbr.bin"
    for place in (
        "/usr/lib/SYSLINUX",
        "/usr/lib/syslinux/mbr",
        "/usr/lib/syslinux/bios",
        "/usr/share/syslinux",
    )
]
"""Where distributions put SYSLINUX's master boot record."""

CMDLINE = "console=ttyS0 quiet cryptomgr.notests noreplace-smp no_timer_check"
NOT_BOOTABLE = "mode: full\nready: {when: running}\n"


def tool(*words: str | os.PathLike[str]) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=120)


def qcow2(path: pathlib.Path, content: str = "0x5a") -> pathlib.Path:
    """Make a disk with known content and nothing to boot from."""
    tool("qemu-img", "create", "-f", "qcow2", path, "64M")
    tool("qemu-io", "-f", "qcow2", "-c", f"write -P {content} 1M 4M", path)
    return path


def spec(site: Site, image: pathlib.Path, text: str, format: str = "qcow2") -> tuple[str, str]:  # noqa: A002
    name = site.name("disk")
    path = site.specs / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nproject: {name}\nmemory: 256MiB\n"
        f"image: {{path: ./{image.name}, format: {format}}}\n{text}"
    )
    return str(path), name


def sha256(path: str | pathlib.Path) -> str:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def state_of(path: str | pathlib.Path) -> tuple[object, ...]:
    """Return content, owner, mode and times of a file."""
    status = os.stat(path)
    owner = (status.st_uid, status.st_gid, status.st_mode)
    return (sha256(path), owner, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def images(site: Site) -> set[str]:
    return {path.name for path in (site.home / "images").iterdir()}


def root_disk(connection: libvirt.virConnect, name: str) -> ET.Element:
    disk = ET.fromstring(connection.lookupByName(name).XMLDesc()).find("devices/disk")
    assert disk is not None
    return disk


@pytest.fixture(scope="module")
def bootable(site: Site) -> pathlib.Path:
    """A raw disk with a partition table, a FAT file system, SYSLINUX, and the tiny guest on it."""
    tiny = site.run("image", "inspect", "tiny", "--json").json
    directory = site.home / "images" / tiny["digest"]
    kernel = directory / ("bzimage" if (directory / "bzimage").exists() else "kernel")
    path = site.specs / "bootable.raw"
    sectors = 64 * MIB // SECTOR - PARTITION
    code = next(place for place in BOOT_CODE if place.exists()).read_bytes()
    lba = b"\xfe\xff\xff"
    entry = struct.pack("<B3sB3sII", 0x80, lba, 0x0E, lba, PARTITION, sectors)
    table = code.ljust(446, b"\0") + entry + bytes(48) + b"\x55\xaa"
    path.write_bytes(table)
    os.truncate(path, 64 * MIB)
    menu = site.specs / "syslinux.cfg"
    menu.write_text(
        f"DEFAULT tiny\nPROMPT 0\nLABEL tiny\n LINUX kernel\n INITRD initrd\n APPEND {CMDLINE}\n"
    )
    inside = f"{path}@@{PARTITION * SECTOR}"
    tool("mformat", "-i", inside, "-T", str(sectors), "-h16", "-s63", "-H", str(PARTITION), "::")
    tool("mcopy", "-i", inside, kernel, "::kernel")
    tool("mcopy", "-i", inside, directory / "initrd", "::initrd")
    tool("mcopy", "-i", inside, menu, "::syslinux.cfg")
    tool("syslinux", "--offset", str(PARTITION * SECTOR), "--install", path)
    return path


def only_drives(site: Site, digest: str, drivers: list[str]) -> None:
    """Say of an image in the store that its kernel drives no more than this."""
    facts = site.home / "images" / digest / "image.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"drivers": drivers}))


@pytest.mark.parametrize(
    ("mode", "format_", "drivers", "driver", "device"),
    [
        ("mode: full", "raw", [], "ahci", "sda"),
        ("mode: full", "raw", ["ide", "e1000"], "ata_piix", "sda"),
        ("accel: tcg\ndevices: virtio", "qcow2", [], "virtio_blk", "vda"),
    ],
    ids=["ahci", "ide", "virtio"],
)
def test_boots_from_the_disk(
    site: Site,
    bootable: pathlib.Path,
    mode: str,
    format_: str,
    drivers: list[str],
    driver: str,
    device: str,
) -> None:
    image = bootable.with_suffix(f".{driver}.{format_}")
    tool("qemu-img", "convert", "-f", "raw", "-O", format_, bootable, image)
    if drivers:
        path, name = spec(site, image, NOT_BOOTABLE, format_)
        site.run("up", path)
        site.run("down", "-y", name)
        only_drives(site, sha256(image), drivers)
    before = state_of(image)
    ready = 'disk: 96MiB\nready: {pattern: "^vmctl-tiny: ready"}\n'
    path, name = spec(site, image, f"{mode}\n{ready}", format_)
    site.run("up", path)
    log = site.run("logs", name).out
    assert f"disk {device} {driver}" in log
    copy = site.home / "images" / sha256(image) / f"disk.{format_}"
    base = state_of(copy)
    said = site.console(
        name,
        f"cat /sys/block/{device}/size; echo written > /dev/{device}; sync; "
        f"echo 3 > /proc/sys/vm/drop_caches; head -c 7 /dev/{device}",
    )
    assert said.split() == [str(96 * MIB // SECTOR), "written"]
    site.run("down", "-y", name)
    assert state_of(copy) == base, "what the guest wrote went to its own overlay"
    assert state_of(image) == before
    image.unlink()


def test_chain_is_written_out_and_the_base_left_alone(
    site: Site, guest_uri: libvirt.virConnect
) -> None:
    image = qcow2(site.specs / "chain.qcow2")
    before = state_of(image)
    path, name = spec(site, image, NOT_BOOTABLE + "disk: 100MiB\n")
    told = site.run("up", path).err
    assert "copy image" in told
    digest = sha256(image)
    copy = str(site.home / "images" / digest / "disk.qcow2")
    base = state_of(copy)
    status = os.stat(copy)
    assert (status.st_uid, status.st_mode & 0o7777) == (os.geteuid(), 0o644)

    disk = root_disk(guest_uri, name)
    overlay = str(site.home / "machines" / name / "root.qcow2")
    for element, file in ((disk, overlay), (disk.find("backingStore"), copy)):
        assert element is not None
        source = element.find("source")
        assert source is not None and source.get("file") == file
    driver, end = disk.find("driver"), disk.find("backingStore/backingStore")
    assert driver is not None and driver.get("type") == "qcow2"
    format_ = disk.find("backingStore/format")
    assert format_ is not None and format_.get("type") == "qcow2"
    assert end is not None and not end.attrib and not len(end), "the chain ends here"
    info = json.loads(
        subprocess.run(
            ["qemu-img", "info", "-U", "--output=json", overlay],
            check=True,
            capture_output=True,
            timeout=60,
        ).stdout
    )
    assert (info["backing-filename"], info["backing-filename-format"]) == (copy, "qcow2")
    assert info["virtual-size"] == 100 * MIB
    assert state_of(copy) == base

    guest = f"{digest[:12]}"
    assert f"chain.qcow2 ({guest})" in site.run("status", name).out
    told = site.run("up", path).err
    assert "copy image" not in told, "the second time there is nothing to copy"
    assert not any(word in told for word in ("changed", "->")), told
    site.run("down", "-y", name)
    assert not os.path.exists(overlay)
    assert state_of(copy) == base
    assert state_of(image) == before
    assert "copy image" not in site.run("up", path).err
    site.run("down", "-y", name)


def test_raw_base_has_its_format_written_out(site: Site, guest_uri: libvirt.virConnect) -> None:
    image = site.specs / "plain.raw"
    image.write_bytes(os.urandom(MIB))
    path, name = spec(site, image, NOT_BOOTABLE, "raw")
    site.run("up", path)
    format_ = root_disk(guest_uri, name).find("backingStore/format")
    assert format_ is not None and format_.get("type") == "raw"
    plan = site.run("up", "--dry-run", "--json", path).json["machines"][0]
    assert (plan["actions"], plan["waiting"], plan["drift"]) == (["wait until ready"], [], [])
    site.run("down", "-y", name)


def test_changed_file_is_for_new_machines(site: Site, guest_uri: libvirt.virConnect) -> None:
    image = qcow2(site.specs / "changing.qcow2")
    old = sha256(image)
    path, name = spec(site, image, NOT_BOOTABLE)
    site.run("up", path)
    number = guest_uri.lookupByName(name).ID()
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 0x77 1M 4k", image)
    new = sha256(image)
    told = site.run("up", path).err
    assert f"image: changing.qcow2 ({old[:12]}) -> changing.qcow2 ({new[:12]})" in told
    assert "only in a new machine" in told
    assert "at the next start" not in told
    assert guest_uri.lookupByName(name).ID() == number
    assert {old, new} <= images(site)
    site.run("down", "-y", name)
    site.run("up", path)
    source = root_disk(guest_uri, name).find("backingStore/source")
    assert source is not None and new in source.get("file", "")
    site.run("down", "-y", name)


def broken(site: Site, how: str) -> tuple[pathlib.Path, str, str]:
    """Make an image that must not be opened; returns it, its declared format and the reason."""
    path = site.specs / f"{how}.img"
    if how == "backing":
        words = ("create", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw")
        tool("qemu-img", *words, path, "1M")
        return path, "qcow2", "backing file '/etc/shadow'"
    if how == "disguised":
        return qcow2(path), "raw", "declared as raw but is a qcow2"
    if how == "page":
        path.write_bytes(b"<!DOCTYPE html>".ljust(SECTOR))
        return path, "qcow2", "a web page"
    os.truncate(qcow2(path), 512)
    return path, "qcow2", "damaged|no qcow2"


@pytest.mark.parametrize("how", ["backing", "disguised", "page", "truncated"])
def test_refused_image(site: Site, guest_uri: libvirt.virConnect, how: str) -> None:
    image, format_, why = broken(site, how)
    path, name = spec(site, image, NOT_BOOTABLE, format_)
    before = images(site)
    for words in (("up", path), ("up", "--dry-run", path)):
        told = site.run(*words, status=7).err
        assert any(reason in told.replace("\n", " ") for reason in why.split("|")), told
        assert "hint: " in told
    assert images(site) == before
    assert not (site.home / "machines" / name).exists()
    assert name not in [domain.name() for domain in guest_uri.listAllDomains()]


def test_missing_file_is_pointed_at(site: Site) -> None:
    path, _ = spec(site, site.specs / "nothing.qcow2", NOT_BOOTABLE)
    told = site.run("up", path, status=2).err
    assert "There is no image" in told
    assert f"{path}:4:" in told.replace("\n", "")


def test_two_ups_at_once_copy_once(site: Site) -> None:
    image = site.specs / "shared.raw"
    image.write_bytes(os.urandom(64 * MIB))
    specs = [spec(site, image, NOT_BOOTABLE, "raw") for _ in range(2)]
    before = images(site)
    ups = [site.start("up", path) for path, _ in specs]
    for up in ups:
        _, told = up.communicate(timeout=PATIENCE)
        assert up.returncode == 0, told
    assert images(site) - before == {sha256(image)}
    for _, name in specs:
        site.run("down", "-y", name)


def test_killed_at_any_point_of_the_copy(site: Site) -> None:
    """The machine runs all along; each time the file is another, and the copy is finished."""
    image = qcow2(site.specs / "killed.qcow2")
    path, name = spec(site, image, NOT_BOOTABLE)
    site.run("up", path)
    deaths = 0
    for when, moment in itertools.product(range(1, 100), ("before", "after")):
        tool(
            "qemu-io", "-f", "qcow2", "-c", f"write -P {when} {2 + (moment == 'after')}M 4k", image
        )
        if not killed(site, when, moment, "up", path):
            break
        deaths += 1
        found = site.home / "images" / sha256(image) / "disk.qcow2"
        assert not found.parent.exists() or sha256(found) == sha256(image)
        site.run("up", path)
        assert sha256(found) == sha256(image)
        assert not rubbish(site)
    assert deaths >= 8
    site.run("down", "-y", name)
