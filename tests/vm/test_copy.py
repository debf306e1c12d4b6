"""Copies into a guest and out of it, and a guest that means ill."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator

import pytest

from tests.vm.conftest import PATIENCE, Site

pytestmark = pytest.mark.vm

MODES = {"full": "mode: full\n", "tcg-virtio": "accel: tcg\ndevices: virtio\n"}


@pytest.fixture(scope="module", params=list(MODES))
def machine(request: pytest.FixtureRequest, site: Site) -> str:
    path, name = site.spec(MODES[request.param])
    # Its files are in memory.
    site.run("up", path, "--set", "memory=384MiB")
    return name


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory with all that names, modes, times and links can be."""
    top = tmp_path / "tree"
    (top / "sub" / "empty").mkdir(parents=True)
    (top / "plain").write_text("hello\n")
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o755)
    (top / "sub" / "private").write_bytes(os.urandom(300_000))
    (top / "sub" / "private").chmod(0o600)
    (top / "two words\nand a line").write_text("x")
    (top / os.fsdecode(b"\xff")).write_text("y")
    (top / "-n").write_text("z")
    (top / ("long" * 50)).write_text("long")
    (top / "sub" / "near").symlink_to("private")
    (top / "down").symlink_to("sub/private")
    with (top / "holes").open("wb") as stream:
        stream.seek(3 << 20)
        stream.write(b"end")
    for path in (top / "plain", top / "sub"):
        os.utime(path, (981173106, 981173106))
    return top


def facts(top: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """Kind, mode, time and content of all below a directory."""
    found: dict[str, tuple[object, ...]] = {}
    for path in top.rglob("*"):
        state = path.lstat()
        mode = state.st_mode
        if path.is_symlink():
            found[str(path.relative_to(top))] = (os.readlink(path),)
        elif path.is_dir():
            found[str(path.relative_to(top))] = (mode, int(state.st_mtime))
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(top))] = (mode, int(state.st_mtime), content)
    return found


def inside(site: Site, machine: str, script: str) -> str:
    return site.run("exec", machine, "--", "sh", "-c", script).out.strip()


def test_there_and_back(
    site: Site, machine: str, tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    inside(site, machine, "rm -rf /root/tree /root/other")
    site.run("cp", str(tree), f"{machine}:")
    site.run("cp", f"{machine}:tree", str(tmp_path / "back"))
    assert facts(tmp_path / "back") == facts(tree)
    assert (tmp_path / "back" / "holes").stat().st_blocks * 512 < 1 << 20
    # Into a directory that is there, and into one by its contents.
    (tmp_path / "into").mkdir()
    site.run("cp", f"{machine}:/root/tree", str(tmp_path / "into"))
    assert facts(tmp_path / "into" / "tree") == facts(tree)
    site.run("cp", f"{tree}/.", f"{machine}:/root/other")
    site.run("cp", f"{tree}/.", f"{machine}:/root/other")
    site.run("cp", f"{machine}:/root/other/.", str(tmp_path / "into"))
    assert facts(tmp_path / "into" / "sub") == facts(tree / "sub")
    assert inside(site, machine, "ls -A /root/tree | wc -l; ls -A /root").split() == [
        *("9", ".ssh", "other", "tree")
    ]


def test_single_files(site: Site, machine: str, tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    site.run("cp", str(tree / "plain"), str(tree / "run"), f"{machine}:/tmp")
    assert inside(site, machine, "cat /tmp/plain; stat -c %a /tmp/run") == "hello\n755"
    site.run("cp", str(tree / "plain"), f"{machine}:/tmp/run")
    assert inside(site, machine, "cat /tmp/run; stat -c %Y /tmp/run") == "hello\n981173106"
    site.run("cp", f"{machine}:/tmp/plain", f"{machine}:/tmp/run", str(tmp_path))
    assert (tmp_path / "plain").read_text() == "hello\n"
    inside(site, machine, "ln -s plain /tmp/link; rm -f /tmp/run")
    site.run("cp", f"{machine}:/tmp/link", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "hello\n"
    assert not (tmp_path / "followed").is_symlink()
    inside(site, machine, "rm /tmp/link /tmp/plain")


def test_what_cannot_be_copied(
    site: Site, machine: str, tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    plain = str(tree / "plain")
    refused = {
        (plain, f"{machine}:/no/such/place"): 3,
        (str(tmp_path / "none"), f"{machine}:/tmp"): 3,
        (f"{machine}:/no/such", str(tmp_path)): 3,
        (f"{machine}:/etc/group", str(tmp_path / "no" / "such")): 3,
        (f"{machine}:/dev/null", str(tmp_path)): 2,
        (f"{machine}:/", str(tmp_path)): 2,
        (plain, plain, f"{machine}:/tmp/x"): 2,
        (plain, str(tree / "run"), f"{machine}:/etc/group"): 3,
        (f"{machine}:/etc/group", f"{machine}:/etc/hosts", plain): 3,
        (str(tree), f"{machine}:/etc/group"): 8,
        (f"{machine}:/etc/group", f"{tree}/sub/../sub/."): 0,
    }
    (tree / "group").mkdir()
    for words, status in refused.items():
        site.run("cp", *words, status=status)
    assert "directory" in site.run("cp", f"{machine}:/etc/group", str(tree), status=4).err
    assert inside(site, machine, "ls -A /tmp /etc | grep vmctl || echo clean") == "clean"
    assert not list(tmp_path.rglob(".vmctl*"))


def test_a_full_guest(site: Site, machine: str, tmp_path: pathlib.Path) -> None:
    inside(site, machine, "mkdir -p /mnt/small; mount -t tmpfs -o size=1m tmpfs /mnt/small")
    (tmp_path / "big").write_bytes(os.urandom(3 << 20))
    result = site.run("cp", str(tmp_path / "big"), f"{machine}:/mnt/small", status=8)
    assert "No space left" in result.err
    assert inside(site, machine, "ls -A /mnt/small; umount /mnt/small") == ""


def test_what_leads_out_is_left_out_and_said(
    site: Site, machine: str, tmp_path: pathlib.Path
) -> None:
    inside(
        site,
        machine,
        "rm -rf /root/odd; mkdir /root/odd; cd /root/odd; ln -s /etc/passwd absolute; "
        "ln -s ../../x out; mkfifo pipe; mknod device c 1 3; echo 1 > s; chmod 6755 s; "
        "touch \"$(printf 'esc\\033[31m')\"; ln s again; ln -s s near",
    )
    result = site.run("cp", f"{machine}:/root/odd", str(tmp_path))
    assert {path.name for path in (tmp_path / "odd").iterdir()} == {
        *("s", "again", "near", "esc\x1b[31m")
    }
    assert (tmp_path / "odd" / "s").stat().st_mode & 0o7777 == 0o755
    assert result.err.count("left out") == 4
    assert "'/etc/passwd'" in result.err


@pytest.mark.parametrize("direction", ["in", "out"])
def test_an_interruption_leaves_nothing_half(
    site: Site, machine: str, tmp_path: pathlib.Path, direction: str
) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(24 << 20))
    there = f"{machine}:/root/big"
    inside(site, machine, "rm -f /root/big")
    if direction == "out":
        site.run("cp", str(big), there)
    words = (str(big), there) if direction == "in" else (there, str(tmp_path / "got"))
    process = site.start("cp", *words)
    if direction == "out":
        end = time.monotonic() + PATIENCE
        while {path.name for path in tmp_path.iterdir()} == {"big"}:
            assert time.monotonic() < end
            time.sleep(0.01)
    else:
        time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    end = time.monotonic() + PATIENCE
    while inside(site, machine, "ls -A /root | grep vmctl || echo none") != "none":
        assert time.monotonic() < end
    assert {path.name for path in tmp_path.iterdir()} == {"big"}
    if direction == "in":
        assert inside(site, machine, "ls /root/big 2> /dev/null || echo none") == "none"
    inside(site, machine, "rm -f /root/big")


def hostile(*members: tuple[str, dict[str, object]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, more in members:
            entry = tarfile.TarInfo(name)
            for key, value in more.items():
                setattr(entry, key, value)
            content = b"planted\n" if entry.isreg() else b""
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


FOLDER: dict[str, object] = {"type": tarfile.DIRTYPE, "mode": 0o755}


def link(target: str) -> dict[str, object]:
    return {"type": tarfile.SYMTYPE, "linkname": target}


ILL: dict[str, Callable[[str], bytes]] = {
    "absolute": lambda victim: hostile((".", FOLDER), (f"{victim}/x", {})),
    "dots": lambda victim: hostile((".", FOLDER), ("../x", {})),
    "dots deeper": lambda victim: hostile((".", FOLDER), ("a/../../x", {})),
    "through a link": lambda victim: hostile((".", FOLDER), ("l", link(victim)), ("l/x", {})),
    "through a link inside": lambda victim: hostile(
        (".", FOLDER), ("d", FOLDER), ("l", link("d")), ("l/x", {})
    ),
    "hard link": lambda victim: hostile(
        (".", FOLDER), ("h", {"type": tarfile.LNKTYPE, "linkname": f"{victim}/file"})
    ),
    "top is a link": lambda victim: hostile((".", link(victim)), ("x", {})),
    "no archive": lambda victim: b"rm -rf /\n" * 1000,
    "an end too early": lambda victim: hostile((".", FOLDER), ("f", {}))[:1500],
}


EVIL_SHELL = r"""#!/bin/sh
# Behaves, but for answering the question of a copy with what lies ready.
IFS= read -r line
case $line in
    *missing*)
        nonce=$(echo "$line" | sed "s/.*036' \\([0-9a-f]*\\) .*/\\1/")
        printf '\036vmctl-%s begin 1\036' "$nonce"
        printf '\036vmctl-%s begin 1\036' "$nonce" >&2
        read -r go
        echo directory
        cat /root/ill.tar
        printf '\036vmctl-%s end 0\036' "$nonce" >&2
        ;;
    *) { echo "$line"; cat; } | /bin/sh "$@" ;;
esac
"""


@pytest.fixture(scope="module")
def ill(site: Site, machine: str) -> Iterator[Callable[[bytes], None]]:
    """Gives the guest a login shell that says what the test wants."""

    def plant(archive: bytes) -> None:
        write("/root/ill.tar", archive)

    def write(path: str, content: bytes) -> None:
        subprocess.run(
            site.command("exec", machine, "--", "sh", "-c", f"cat > {path}"),
            input=content,
            env=site.env,
            check=True,
            timeout=PATIENCE,
        )

    write("/bin/evil", EVIL_SHELL.encode())
    inside(
        site,
        machine,
        "mkdir -p /root/d; chmod +x /bin/evil; echo /bin/evil >> /etc/shells; "
        "sed -i 's,:/bin/sh$,:/bin/evil,' /etc/passwd",
    )
    yield plant
    inside(site, machine, "sed -i 's,:/bin/evil$,:/bin/sh,' /etc/passwd")


@pytest.mark.parametrize("how", list(ILL))
def test_a_hostile_guest(
    site: Site, machine: str, ill: Callable[[bytes], None], tmp_path: pathlib.Path, how: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine")
    there = tmp_path / "in" / "there"
    there.mkdir(parents=True)
    ill(ILL[how](str(victim)))
    # Where no connection is open: the shell is chosen at the login.
    env = {"XDG_RUNTIME_DIR": str(site.home)}
    site.run("cp", f"{machine}:/root/d", str(there), status=7, **env)
    assert os.listdir(victim) == ["file"]
    assert (victim / "file").read_text() == "mine"
    assert os.listdir(there) == []
    assert set(os.listdir(tmp_path)) == {"victim", "in"}
