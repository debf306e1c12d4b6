"""Directories of the host in real guests: 9p and virtiofs, read-only and writable, odd names."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import libvirt
import pytest

from tests.vm.conftest import Site

pytestmark = pytest.mark.vm

ODD = "it's a dïr (1)"
GUEST_ODD = "/mnt/ödd place"
BIG = os.urandom(8 << 20)


@pytest.fixture(scope="module")
def place(site: Site) -> Iterator[pathlib.Path]:
    """A directory with specs and what they share, where QEMU's own account can read it."""
    top = pathlib.Path(tempfile.mkdtemp(prefix="vmctl-share-", dir="/var/tmp"))
    top.chmod(0o755)
    source = top / "src"
    (source / "below").mkdir(parents=True)
    (source / "hello.txt").write_text("hello\n")
    (source / "below" / "ünï.txt").write_text("deep\n")
    (source / "big").write_bytes(BIG)
    (source / "out").symlink_to("/etc/passwd")
    (source / "private").write_text("for root alone\n")
    (source / "private").chmod(0o600)
    (top / ODD).mkdir()
    yield top
    shutil.rmtree(top, ignore_errors=True)


def spec(site: Site, place: pathlib.Path, mounts: str, *more: str) -> tuple[str, str]:
    name = site.name("mount")
    path = place / f"{name}.yaml"
    text = f"name: {name}\nproject: {name}\nimage: tiny\nmemory: 128MiB\n"
    text += "accel: tcg\ndevices: virtio\n"
    path.write_text("\n".join([f"{text}mounts: {mounts}", *more, ""]))
    return str(path), name


@pytest.fixture(scope="module")
def machine(site: Site, place: pathlib.Path) -> str:
    """A machine with a read-only and a writable mount."""
    odd = f'{{host: "./{ODD}", guest: "{GUEST_ODD}", writable: true}}'
    path, name = spec(site, place, f"[{{host: ./src, guest: /src}}, {odd}]")
    site.run("up", path)
    return name


def inside(site: Site, name: str, script: str, status: int = 0) -> str:
    return site.run("exec", name, "--", "sh", "-c", script, status=status).out


def test_files_are_seen(site: Site, machine: str) -> None:
    assert inside(site, machine, "cat /src/hello.txt '/src/below/ünï.txt'") == "hello\ndeep\n"
    told = inside(site, machine, "sha256sum < /src/big").split()[0]
    assert told == hashlib.sha256(BIG).hexdigest()


def test_changes_of_the_host_are_seen_at_once(
    site: Site, machine: str, place: pathlib.Path
) -> None:
    for number in range(3):
        (place / "src" / "changing").write_text(f"{number}" * (number + 1))
        assert inside(site, machine, "cat /src/changing") == f"{number}" * (number + 1)


def test_read_only_is_kept_by_the_host(site: Site, machine: str, place: pathlib.Path) -> None:
    """The guest's root can have its kernel write; QEMU refuses."""
    attempts = (
        "echo x > /src/new; echo x > /src/hello.txt; rm /src/hello.txt; mkdir /src/dir; "
        "chmod 777 /src/hello.txt; ln -s a /src/link; mv /src/hello.txt /src/moved"
    )
    said = inside(
        site,
        machine,
        f"mount -o remount,rw /src && {{ {attempts}; }} 2>&1; grep ' /src ' /proc/mounts",
    )
    assert said.count("Read-only file system") == 7
    assert " rw," in said
    assert (place / "src" / "hello.txt").read_text() == "hello\n"
    assert not (place / "src" / "new").exists()


def test_a_link_that_leads_out_is_the_guests(site: Site, machine: str) -> None:
    """It is followed where it is read: in the guest, in the guest's own tree."""
    said = inside(site, machine, "readlink /src/out; cat /src/out")
    assert said == "/etc/passwd\nroot:*:0:0:root:/root:/bin/sh\n"


def test_files_closed_to_qemus_account_stay_closed(site: Site, machine: str) -> None:
    said = site.run("exec", machine, "--", "cat", "/src/private", status=1)
    assert "Permission denied" in said.err


def test_writable_reaches_the_host(site: Site, machine: str, place: pathlib.Path) -> None:
    inside(
        site,
        machine,
        f"cd '{GUEST_ODD}' && cp /src/big copy && mkdir 'a b' && echo text > 'a b/ñ' && "
        "chmod 640 copy && chown 1234:2345 copy && ln -s 'a b' link",
    )
    copy = place / ODD / "copy"
    status = copy.stat()
    assert copy.read_bytes() == BIG
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o640, 1234, 2345)
    assert (place / ODD / "a b" / "ñ").read_text() == "text\n"
    assert os.readlink(place / ODD / "link") == "a b"
    (place / ODD / "from host").write_text("back\n")
    assert inside(site, machine, f"cat '{GUEST_ODD}/from host'") == "back\n"


def test_guest_sees_by_which_means(site: Site, machine: str) -> None:
    rows = [row.split() for row in inside(site, machine, "grep ^vmctl- /proc/mounts").splitlines()]
    kinds = {row[1].replace("\\040", " "): (row[2], row[3].split(",")) for row in rows}
    assert kinds[GUEST_ODD][0] == "virtiofs"
    assert kinds["/src"][0] == "9p"
    assert {"nosuid", "nodev"} <= set(kinds["/src"][1])


def test_status_tells_them_and_no_drift(site: Site, machine: str, place: pathlib.Path) -> None:
    status = site.status(machine)
    assert status["drift"] == []
    assert {mount["guest"] for mount in status["machine"]["mounts"]} == {"/src", GUEST_ODD}
    text = site.run("status", machine).out
    assert f"{place}/src -> /src (9p, read-only)" in text


def test_up_again_has_nothing_to_do(site: Site, machine: str, place: pathlib.Path) -> None:
    assert "mounts" not in site.run("up", str(place / f"{machine}.yaml")).err


def test_mounts_come_back_after_a_restart_and_change_there(site: Site, place: pathlib.Path) -> None:
    path, name = spec(site, place, "[{host: ./src, guest: /src}]")
    site.run("up", path)
    text = pathlib.Path(path).read_text()
    pathlib.Path(path).write_text(text.replace("guest: /src", "guest: /other/src"))
    changed = site.run("up", path)
    assert "mounts[/other/src]" in changed.err
    assert "at the next start" in changed.err
    assert inside(site, name, "cat /src/hello.txt") == "hello\n"
    site.run("restart", "--force", name)
    assert inside(site, name, "cat /other/src/hello.txt") == "hello\n"
    assert inside(site, name, "grep -c ^vmctl- /proc/mounts") == "1\n"
    site.run("down", "-y", name)


def test_the_agent_makes_them_where_there_is_no_network(site: Site, place: pathlib.Path) -> None:
    path, name = spec(site, place, "[{host: ./src, guest: /src}]", "networks: []")
    site.run("up", path)
    assert site.console(name, "cat /src/hello.txt") == "hello"
    site.run("down", "-y", name)


def test_a_guest_without_a_way_in_is_told_the_commands(site: Site, place: pathlib.Path) -> None:
    # It is taken for ready long before its agent is started.
    ready = "ready: {when: running}"
    path, name = spec(site, place, "[{host: ./src, guest: /src}]", "networks: []", ready)
    said = site.run("up", path).err
    assert "its mounts were not made" in said
    assert "mount -t 9p -o" in " ".join(said.split())
    site.run("down", "-y", name)


def test_a_directory_that_qemu_cannot_read_is_refused_before_anything_is_made(
    site: Site, place: pathlib.Path, guest_uri: libvirt.virConnect
) -> None:
    closed = place / "closed"
    (closed / "below").mkdir(parents=True)
    closed.chmod(0o700)
    path, name = spec(site, place, "[{host: ./closed/below, guest: /src}]")
    said = " ".join(site.run("up", path, status=5).err.split())
    assert f"may not enter '{closed}'" in said
    assert f"setfacl -m u:libvirt-qemu:x {closed}" in said
    with pytest.raises(libvirt.libvirtError):
        guest_uri.lookupByName(name)
    assert not (site.home / "machines" / name).exists()
    # As it says.
    closed.chmod(0o711)
    site.run("up", path)
    assert inside(site, name, "ls /src") == ""
    site.run("down", "-y", name)


def test_a_directory_that_went_is_told_at_the_next_start(site: Site, place: pathlib.Path) -> None:
    gone = place / "gone"
    gone.mkdir()
    path, name = spec(site, place, "[{host: ./gone, guest: /src}]")
    site.run("up", "--no-wait", path)
    site.run("stop", "--force", name)
    gone.rmdir()
    assert f"no directory '{gone}'" in site.run("start", name, status=5).err
    assert f"no directory '{gone}'" in site.run("up", path, status=2).err
    site.run("down", "-y", name)


@pytest.mark.parametrize(
    ("mounts", "more", "words"),
    [
        ("[{host: ., guest: /x, writable: true}]", "", "own directory is never mounted writable"),
        ("[{host: ./none, guest: /x}]", "", "there is no directory"),
        ("[{host: ./src/hello.txt, guest: /x}]", "", "is not a directory"),
        ("[{host: /etc, guest: /x}]", "", "outside"),
        ("[{host: ./src, guest: /x}]", "mode: full", "mode 'full' has none"),
        ("[{host: ./src, guest: /proc/x}]", "", "a directory of its own in the guest"),
        ("[{host: ./src, guest: /x}, {host: ./src, guest: /x/}]", "", "two mounts"),
    ],
)
def test_refused(site: Site, place: pathlib.Path, mounts: str, more: str, words: str) -> None:
    path, name = spec(site, place, mounts)
    if more:
        text = pathlib.Path(path).read_text().replace("accel: tcg\ndevices: virtio\n", f"{more}\n")
        pathlib.Path(path).write_text(text)
    assert words in " ".join(site.run("up", path, status=2).err.split())
    assert not (site.home / "machines" / name).exists()


def test_the_store_is_refused(site: Site) -> None:
    name = site.name("mount")
    path = site.specs / f"{name}.yaml"
    head = f"name: {name}\nimage: tiny\naccel: tcg\ndevices: virtio\n"
    for mounts, words in (
        (f"[{{host: {site.home}/machines, guest: /x}}]", "own store"),
        (f"[{{host: {site.home.parent}, guest: /x, writable: true}}]", "never mounted writable"),
        ("[{host: /, guest: /x, writable: true}]", "'/' is never mounted writable"),
    ):
        path.write_text(f"{head}mounts: {mounts}\n")
        said = site.run("up", "--allow-outside", str(path), status=2).err
        assert words in " ".join(said.split())


def test_virtiofsd_goes_with_its_machine(site: Site, machine: str, place: pathlib.Path) -> None:
    """Nothing that serves a guest outlives it."""

    def servers() -> list[bytes]:
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = entry.read_bytes()
                if b"virtiofsd" in words and os.fsencode(place) in words:
                    found.append(words)
        return found

    assert servers()
    site.run("down", "-y", machine)
    assert not servers()
