"""Makes disks of container images with the host's own tools for ext4, and looks into them."""

from __future__ import annotations

import hashlib
import itertools
import os
import pathlib
import re
import subprocess
import tarfile

import pytest

from tests.images.containers import (
    PROGRAM,
    device,
    directory,
    file,
    hardlink,
    layer,
    saved,
    symlink,
)
from tests.images.containers import (
    Layout as Container,
)
from vmctl import errors, interruption
from vmctl.deadline import Deadline
from vmctl.images import bootable, catalog, imports
from vmctl.machine.model import DiskFormat, Image
from vmctl.store import files
from vmctl.store.layout import Layout

ODD = 'a "b" <7> -x\t$(x)'
FILES = layer(
    PROGRAM,
    directory("etc", mode=0o750, uid=3, gid=4),
    file("etc/big", b"0123456789abcdef" * 65536, uid=100_000, gid=200_000, mode=0o4711),
    file("etc/zeros", bytes(8 << 20) + b"end"),
    file("empty", b"", mtime=1_234_567_890),
    file(ODD, b"odd"),
    directory("<2>"),
    file("<2>/-", b"dash"),
    symlink("link", "/etc/big"),
    symlink("long", "x/" * 1500),
    hardlink("hard", "etc/big"),
    device("char"),
    device("block", tarfile.BLKTYPE, 8, 300),
    device("pipe", tarfile.FIFOTYPE),
    file(
        "capable",
        b"x",
        pax_headers={"SCHILY.xattr.security.capability": "\1\0\0\2\0\4\0\0" + "\0" * 12},
    ),
    directory("lost+found", mode=0o711),
    directory("many"),
    *(hardlink(f"many/{number:0200d}", "empty") for number in range(300)),
)


def tool(*words: str | os.PathLike[str]) -> str:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "PATH": path},
    )
    return done.stdout


def ask(disk: str, command: str) -> str:
    return tool("debugfs", "-R", command, disk)


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> Layout:
    """A store that has something in the place of tiny: no packages are needed for these tests."""
    layout = Layout(tmp_path / "store")
    digest = "ab" * 32
    top = layout.image(digest)
    files.make_directory(top)
    files.make_directory(layout.image_names)
    for name in (catalog.KERNEL, catalog.INITRD, catalog.BZIMAGE):
        (top / name).write_bytes(name.encode())
    facts = catalog.promised("tiny") | {"digest": digest}
    files.write_json(top / catalog.FACTS, facts)
    from vmctl.images import recipes

    record = {"digest": digest, "recipe": recipes.fingerprint("tiny")}
    files.write_json(layout.image_names / "tiny.json", record)
    return layout


def take(layout: Layout, name: str, path: pathlib.Path, *, replace: bool = False) -> Image:
    order = imports.Order(name=name, path=str(path), replace=replace)
    return imports.container(layout, order, "", Deadline.after(300), lambda *_: None)


def test_disk_holds_what_the_layers_do(layout: Layout, tmp_path: pathlib.Path) -> None:
    image = take(layout, "app", Container(FILES).write(tmp_path / "layout"))
    tool("e2fsck", "-f", "-n", image.disk)
    assert os.stat(image.disk).st_size == image.size
    assert os.stat(image.disk).st_blocks * 512 < 8 << 20, "zeros and free space are holes"
    big = ask(image.disk, "stat /etc/big")
    assert re.search(r"Mode: +04711 .*User: 100000 +Group: 200000 .*Links: 2", big, re.DOTALL)
    assert "Size: 1048576" in big
    assert ask(image.disk, "cat /hard") == "0123456789abcdef" * 65536
    assert ask(image.disk, f'cat "/{ODD.replace(chr(34), chr(34) * 2)}"') == "odd"
    assert ask(image.disk, 'cat "/<2>/-"') == "dash"
    assert "1234567890" in str(
        int(re.findall(r"mtime: 0x(\w+)", ask(image.disk, "stat /empty"))[0], 16)
    )
    assert 'Fast link dest: "/etc/big"' in ask(image.disk, "stat /link")
    assert len(ask(image.disk, "cat /long")) == 3000
    assert "Type: character special" in ask(image.disk, "stat /char")
    assert re.search(r"08:300|8:300|major.*8", ask(image.disk, "stat /block"))
    assert "Type: FIFO" in ask(image.disk, "stat /pipe")
    assert "security.capability (20)" in ask(image.disk, "ea_list /capable")
    assert "Mode:  0750" in ask(image.disk, "stat /etc")
    assert ask(image.disk, "ls -p /many").count("/0000") == 300
    assert "Links: 301" in ask(image.disk, "stat /empty")
    zeros = ask(image.disk, "dump /etc/zeros " + str(tmp_path / "zeros"))
    assert not zeros and (tmp_path / "zeros").read_bytes() == bytes(8 << 20) + b"end"


def test_same_layers_have_the_same_digest(layout: Layout, tmp_path: pathlib.Path) -> None:
    first = take(layout, "one", Container(FILES).write(tmp_path / "layout"))
    content = hashlib.sha256(pathlib.Path(first.disk).read_bytes()).hexdigest()
    second = take(layout, "two", saved(tmp_path / "saved.tar", FILES))
    assert (first.digest, first.disk) == (second.digest, second.disk)
    assert (first.name, second.name) == ("one", "two")
    assert hashlib.sha256(pathlib.Path(second.disk).read_bytes()).hexdigest() == content
    other = take(layout, "three", saved(tmp_path / "other.tar", FILES, Cmd=["other"]))
    assert other.digest != first.digest
    assert hashlib.sha256(pathlib.Path(other.disk).read_bytes()).hexdigest() == content


def test_image_boots_by_its_kernel_and_shares_it(layout: Layout, tmp_path: pathlib.Path) -> None:
    image = take(layout, "app", Container().write(tmp_path / "layout"))
    tiny = catalog.find(layout, "tiny")
    assert image.boot == "kernel" and image.cmdline == tiny.cmdline
    assert image.container and not tiny.container
    assert os.path.samefile(image.kernel, tiny.kernel)
    assert os.path.samefile(image.efi_kernel, tiny.efi_kernel)
    initrd = pathlib.Path(image.initrd).read_bytes()
    assert initrd.startswith(b"initrd") and b"/bin/run" in initrd
    assert image.ready_pattern == bootable.READY
    assert {path.name for path in layout.images.iterdir()} == {tiny.digest, image.digest}
    names = {path.name for path in layout.image(image.digest).iterdir()}
    assert names == {"disk.raw", "kernel", "bzimage", "initrd", "image.json"}
    assert all(
        path.stat().st_mode & 0o777 == 0o644 for path in layout.image(image.digest).iterdir()
    )


def test_zstd_layers(layout: Layout, tmp_path: pathlib.Path) -> None:
    def pack(content: bytes) -> bytes:
        return subprocess.run(
            ["zstd", "-q", "-c"], input=content, capture_output=True, check=True, timeout=60
        ).stdout

    media = "application/vnd.oci.image.layer.v1.tar+zstd"
    plain = take(layout, "plain", Container(FILES).write(tmp_path / "plain"))
    packed = take(layout, "packed", Container(FILES, pack=pack, media=media).write(tmp_path / "z"))
    assert plain.digest == packed.digest
    broken = Container(pack=lambda content: pack(content)[:-9], media=media)
    path = broken.write(tmp_path / "broken")
    with pytest.raises(errors.RefusedError, match="cannot be unpacked"):
        take(layout, "broken", path)


def test_refused_imports_leave_nothing(layout: Layout, tmp_path: pathlib.Path) -> None:
    before = sorted(layout.home.rglob("*"))
    evil = Container(layer(PROGRAM, file("../../../../../../tmp/evil")))
    with pytest.raises(errors.RefusedError, match="leads out"):
        take(layout, "app", evil.write(tmp_path / "evil"))
    with pytest.raises(errors.NotFoundError):
        take(layout, "app", tmp_path / "absent")
    with pytest.raises(errors.ConflictError, match="cannot be replaced"):
        take(layout, "tiny", tmp_path / "evil", replace=True)
    with pytest.raises(errors.UsageError, match="cannot be the name"):
        take(layout, "../app", tmp_path / "evil")
    after = {path for path in layout.home.rglob("*") if "locks" not in path.parts}
    assert after - {layout.format_file, layout.machines} == set(before)


def test_names_are_taken_once(layout: Layout, tmp_path: pathlib.Path) -> None:
    path = Container().write(tmp_path / "layout")
    first = take(layout, "app", path)
    with pytest.raises(errors.ConflictError, match="'app' already"):
        take(layout, "app", path)
    with pytest.raises(errors.ConflictError, match="comes with a recipe"):
        take(layout, "debian-12", path)
    again = take(layout, "app", saved(tmp_path / "other.tar", Cmd=["two"]), replace=True)
    assert catalog.find(layout, "app").digest == again.digest != first.digest
    with pytest.raises(errors.NotFoundError) as caught:
        catalog.find(layout, "ap")
    assert "'app'" in caught.value.hint


def test_an_interrupted_import_leaves_nothing(layout: Layout, tmp_path: pathlib.Path) -> None:
    """Whichever of the programs and loops is at work when nobody wants it any more."""
    path = Container(FILES).write(tmp_path / "layout")
    before = set((layout.home / "images").iterdir())
    for attempt in itertools.count():
        left = itertools.count()
        looks = int(1.3**attempt)
        try:
            with interruption.asked(lambda left=left, looks=looks: next(left) >= looks):
                take(layout, "cut", path)
        except errors.InterruptError:
            assert set((layout.home / "images").iterdir()) == before
            assert not (layout.image_names / "cut.json").exists()
        else:
            break
    assert attempt > 5
    assert catalog.find(layout, "cut").container


def test_disk_gets_a_name(layout: Layout, tmp_path: pathlib.Path) -> None:
    disk = tmp_path / "mine.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", disk, "64M")
    before = disk.read_bytes()
    order = imports.Order(name="mine", path=str(disk))
    traits = imports.Traits(cloud_init=True, user="dev", drivers=frozenset({"virtio"}))

    def take_disk(order: imports.Order) -> Image:
        return imports.disk(
            layout, order, DiskFormat.QCOW2, traits, Deadline.after(60), lambda *_: None
        )

    image = take_disk(order)
    assert catalog.find(layout, "mine") == image
    assert (image.cloud_init, image.user, image.drivers) == (True, "dev", {"virtio"})
    assert (image.size, image.kernel, image.disk_format) == (64 << 20, "", "qcow2")
    assert pathlib.Path(image.disk).read_bytes() == before == disk.read_bytes()
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", disk, "64M")
    with pytest.raises(errors.RefusedError, match="refers to another file"):
        take_disk(imports.Order(name="evil", path=str(disk)))
    assert not [path for path in layout.images.iterdir() if path.name.startswith(".")]


def test_lost_files_of_an_import_are_told(layout: Layout, tmp_path: pathlib.Path) -> None:
    image = take(layout, "app", Container().write(tmp_path / "layout"))
    os.unlink(image.disk)
    with pytest.raises(errors.NotFoundError, match="was imported") as caught:
        catalog.find(layout, "app")
    assert "vmctl image import --replace app" in caught.value.hint
